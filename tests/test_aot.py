"""One function for all kernels: its answers, and what it leaves to the virtual machine."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import tvm
from onnx import TensorProto, helper
from onnx_models import node
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - its usual name

import hybridc
from hybridc.compiler import target
from hybridc.compiler.aot import open_table, parts, worth
from hybridc.compiler.aot.join import BY_KERNEL
from hybridc.compiler.aot.region import Failures, Kernel
from hybridc.compiler.building import stack
from hybridc.compiler.model import Array, random_feed
from hybridc.compiler.runtime.session import InferenceSession

SHAPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64, "bool": TensorProto.BOOL}


def model(nodes: Sequence[Any], inputs: dict[str, list[int]], outputs: Sequence[str]) -> Any:
    """A model with random weights `w`, 16 x 16, and `k`, 16 x 16 x 3 x 3."""
    rng = np.random.default_rng(0)
    weights = {
        "w": rng.standard_normal((16, 16)).astype(np.float32),
        "k": rng.standard_normal((16, 16, 3, 3)).astype(np.float32) / 12,
        "k2": np.array([2]),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    return onnx.shape_inference.infer_shapes(made)


IMAGES = [
    node("Conv", "x k", "a", pads=[1] * 4),
    node("Relu", "a", "b"),
    node("Conv", "b k", "c", pads=[1] * 4),
    node("Add", "c b", "d"),
    node("MaxPool", "d", "e", kernel_shape=[2, 2], strides=[2, 2]),
    node("Softmax", "e", "f", axis=1),
]
ROWS = [
    node("MatMul", "x w", "a"),
    node("Softmax", "a", "b"),
    node("MatMul", "b w", "c"),
    node("Transpose", "c", "d", perm=[1, 0]),
    node("ReduceSum", "d", "e", keepdims=0),
]
CASES = {
    "images": model(IMAGES, {"x": [2, 16, 9, 11]}, ["f"]),
    "more than the last": model(IMAGES, {"x": [1, 16, 8, 8]}, ["b", "f", "d"]),
    "rows": model(ROWS, {"x": [37, 16]}, ["b", "d"]),
    "a scalar": model(ROWS, {"x": [5, 16]}, ["e"]),
    "one twice": model([*ROWS, node("Identity", "d", "z")], {"x": [5, 16]}, ["d", "z"]),
    "an input": model([*ROWS, node("Identity", "x", "z")], {"x": [5, 16]}, ["d", "z"]),
    "a weight": model([*ROWS, node("Identity", "w", "z")], {"x": [5, 16]}, ["d", "z"]),
    "another shape": model([*ROWS, node("Flatten", "d", "z", axis=0)], {"x": [5, 16]}, ["d", "z"]),
    "a shape of an input": model(
        [node("Flatten", "x", "y", axis=0), *ROWS], {"x": [5, 16]}, ["d", "y"]
    ),
    "one of a kernel's two": model(
        [*ROWS[:3], node("TopK", "c k2", "t i", axis=1), node("Tanh", "t", "u")],
        {"x": [5, 16]},
        ["t", "u"],
    ),
    "no kernel": model([node("Identity", "x", "z")], {"x": [5, 16]}, ["z"]),
}


@pytest.fixture
def _on_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """However small a model is."""
    monkeypatch.setattr(worth, "pays", lambda *_: True)


@pytest.mark.usefixtures("_on_all_threads")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("case", CASES)
def test_answers_are_those_of_single_calls(case: str, threads: int) -> None:
    artifact = hybridc.compile(CASES[case], threads=threads)
    feed = random_feed(artifact.inputs, 1)
    session, watched = InferenceSession(artifact), InferenceSession(artifact)
    seen: list[str] = []

    def observer(_: Any, name: str, *__: Any) -> int:
        seen.append(name)
        return 0

    watched.instrument(observer)
    for got, want in zip(session.run(None, feed), watched.run(None, feed), strict=True):
        assert np.array_equal(got, want)
    assert "all_kernels" not in seen
    assert [np.array_equal(*pair) for pair in zip(*(session.run(None, feed),) * 2, strict=True)]


def chain(seed: int) -> Any:
    """Small operators one after the other, each on what the one before it left in storage."""
    rng = np.random.default_rng(seed)
    kinds = [
        ("Transpose", {"perm": [1, 0]}),
        ("Softmax", {"axis": 0}),
        ("Softmax", {"axis": 1}),
        ("CumSum", {}),
        ("LayerNormalization", {"axis": 1}),
        ("MatMul", {}),
    ]
    nodes: list[Any] = []
    for index in range(14):
        op, attributes = kinds[int(rng.integers(len(kinds)))]
        more = {"CumSum": " axis", "LayerNormalization": " scale", "MatMul": " w"}.get(op, "")
        given = f"t{index}" if index else "x"
        nodes.append(node(op, given + more, f"t{index + 1}", **attributes))
    nodes.append(node("Add", "t14 t9", "y"))
    made = model(nodes, {"x": [16, 16]}, ["y"])
    for name, value in (("axis", np.int64(1)), ("scale", np.ones(16, np.float32))):
        made.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return made


@pytest.mark.usefixtures("_on_all_threads")
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_storage_that_is_used_again_is_read_in_order(seed: int, threads: int) -> None:
    """LLVM saw through calls of small kernels and moved loads of one above stores of another."""
    artifact = hybridc.compile(chain(seed), threads=threads, verify="off")
    feed = random_feed(artifact.inputs, 1)
    session, watched = InferenceSession(artifact), InferenceSession(artifact)
    watched.instrument(lambda *_: 0)
    assert np.array_equal(session.run(None, feed)[0], watched.run(None, feed)[0])


@pytest.mark.parametrize("dtype", ["auto", "bf16"])
def test_kernels_that_cannot_be_split_are_called_whole(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arrays of types that TVM computes in others cannot be made: those models stay as they are."""
    together = dtype == "auto" or target.parse("cpu").faster(dtype) == 1.0
    wanted = hybridc.compile(CASES["rows"], threads=2, dtype=dtype)
    monkeypatch.setattr(parts, "split", lambda *_: None)
    whole = hybridc.compile(CASES["rows"], threads=2, dtype=dtype)
    assert (BY_KERNEL.encode() in whole.library) == together
    feed = random_feed(wanted.inputs, 1)
    answers = [InferenceSession(each).run(None, feed) for each in (wanted, whole)]
    assert all(np.array_equal(*pair) for pair in zip(*answers, strict=True))


@pytest.mark.usefixtures("_on_all_threads")
def test_an_artifact_of_more_threads_runs_on_fewer() -> None:
    artifact = hybridc.compile(CASES["images"], threads=2)
    feed = random_feed(artifact.inputs, 1)
    answers = [InferenceSession(artifact, threads).run(None, feed) for threads in (1, 2)]
    assert np.array_equal(answers[0][0], answers[1][0])


@pytest.mark.parametrize(("size", "several"), [(8, False), (256, True)])
def test_small_models_run_on_one_thread(
    size: int, several: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What threads would wait for each other takes longer than the work, or not."""
    asked, pays = list[bool](), worth.pays

    def noted(*given: Any) -> bool:
        asked.append(pays(*given))
        return asked[-1]

    monkeypatch.setattr(worth, "pays", noted)
    small = model(IMAGES, {"x": [1, 16, size, size]}, ["f"])
    artifact = hybridc.compile(small, threads=2, target="avx2")
    assert asked == [several]
    assert (b"TVMBackendParallelLaunch" in artifact.library) == several


def test_open_sizes_keep_the_virtual_machines_calls_beside_those_by_address() -> None:
    artifact = hybridc.compile(CASES["rows"], threads=1)
    opened = onnx.ModelProto()
    opened.CopyFrom(CASES["rows"])
    opened.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
    del opened.graph.node[4:]
    del opened.graph.output[0]
    for graph in (opened.graph.output, opened.graph.value_info):
        for value in graph:
            value.type.tensor_type.ClearField("shape")
    other = hybridc.compile(opened, threads=1)
    assert BY_KERNEL.encode() in artifact.library
    assert BY_KERNEL.encode() not in other.library
    assert open_table.SIZES.encode() in other.library


@T.prim_func(s_tir=True, private=True)
def two_loops(
    x: T.Buffer((12, 8), "float32"),  # pyright: ignore[reportInvalidTypeForm]
    y: T.Buffer((12, 8), "float32"),  # pyright: ignore[reportInvalidTypeForm]
) -> None:
    held = T.sblock_alloc_buffer((12, 8), "float32")
    for i in T.parallel(12):
        for j in range(8):
            with T.sblock("double"):
                a, b = T.axis.remap("SS", [i, j])
                held[a, b] = x[a, b] * T.float32(2)
    for i in T.parallel(12):
        for j in range(8):
            with T.sblock("mirror"):
                a, b = T.axis.remap("SS", [i, j])
                y[a, b] = held[11 - a, b] + x[a, b]


@T.prim_func(s_tir=True, private=True)
def inner_loop(
    x: T.Buffer((3, 8), "float32"),  # pyright: ignore[reportInvalidTypeForm]
    y: T.Buffer((3, 8), "float32"),  # pyright: ignore[reportInvalidTypeForm]
) -> None:
    for i in T.serial(3):
        for j in T.parallel(8):
            with T.sblock("double"):
                a, b = T.axis.remap("SS", [i, j])
                y[a, b] = x[a, b] * T.float32(2)


def run(kernel: Any, threads: int, x: Array) -> Array:
    """What a kernel in parts, by itself, makes of an array."""
    found = parts.split(kernel, threads)
    assert found is not None
    names = [tvm.ir.GlobalVar(f"part{index}") for index in range(len(found.parts))]
    whole = Kernel(found, names).alone(kernel).with_attr({"global_symbol": "main", "s_tir": True})
    functions = dict(zip(names, (part.func for part in found.parts), strict=True))
    module = tvm.IRModule({**functions, tvm.ir.GlobalVar("main"): whole})
    built = tvm.compile(module, target="llvm", tir_pipeline=stack.TIR_PIPELINE).jit()
    given, made = tvm.runtime.tensor(x), tvm.runtime.tensor(np.full_like(x, np.nan))
    built["main"](given, made)
    answer: Array = made.numpy()
    return answer


@pytest.mark.parametrize("threads", range(1, 14))
def test_tasks_share_all_turns(threads: int) -> None:
    x = np.arange(96, dtype=np.float32).reshape(12, 8)
    assert np.array_equal(run(two_loops, threads, x), 2 * x[::-1] + x)
    found = parts.split(two_loops, threads)
    assert found is not None
    assert [part.tasks for part in found.parts] == [-(-12 // -(-12 // threads))] * 2
    assert [buffer.name for buffer in found.shared] == ["held"]


def test_marks_around_all_loops_stand_around_each() -> None:
    body = two_loops.body.block
    one = tirx.const(1, "int32")
    marked = tirx.AttrStmt(one, "pragma_import_llvm", tvm.ir.StringImm(""), body.body)
    root = tvm.s_tir.SBlock([], [], [], "root", marked, alloc_buffers=body.alloc_buffers)
    kernel = two_loops.with_body(tvm.s_tir.SBlockRealize([], True, root))
    found = parts.split(kernel, 2)
    assert found is not None
    assert [part.tasks for part in found.parts] == [2, 2]
    assert all("pragma_import_llvm" in part.func.script() for part in found.parts)


def test_loops_within_loops_are_shared_where_no_turn_reads_what_others_store() -> None:
    x = np.arange(24, dtype=np.float32).reshape(3, 8)
    assert np.array_equal(run(inner_loop, 2, x), 2 * x)


def test_kernels_that_call_others_are_left_to_tvm() -> None:
    call = tirx.Evaluate(tirx.call_packed("runtime.NumThreads"))
    body = two_loops.body.block
    assert parts.split(two_loops, 2) is not None
    changed = tvm.s_tir.SBlock([], [], [], "root", parts.sequence([body.body, call]))
    realized = tvm.s_tir.SBlockRealize([], True, changed)
    assert parts.split(two_loops.with_body(realized), 2) is None


def test_a_failure_is_remembered() -> None:
    failures = Failures()
    bad = failures.noted(tirx.const(-1, "int32"))
    good = failures.noted(tirx.const(0, "int32"))
    for steps, fails in (([good, good], False), ([bad, good], True)):
        func = tirx.PrimFunc([], failures.around(steps))
        func = func.with_attr({"global_symbol": "main", "s_tir": True})
        built = tvm.compile(tvm.IRModule({"main": func}), target="llvm").jit()
        if fails:
            with pytest.raises(RuntimeError, match="no memory"):
                built["main"]()
        else:
            built["main"]()
