"""Convolutions and products of every shape, from Relax operator to kernel, against ONNX Runtime."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from cpus import CPUS
from drawn import drawn
from hypothesis import settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper
from tvm.tirx import For, ForKind
from tvm_ffi import structural_walk

from hybridc.compiler import frontend, pipeline, plugin, target
from hybridc.compiler.interfaces import Context
from hybridc.compiler.ir import evaluate
from hybridc.compiler.kernels.products import contractions
from hybridc.compiler.model import Model

Array = NDArray[np.float32]
FEW = settings(max_examples=25, deadline=None, derandomize=True)
PIPELINE = "fold-constants,layout,fold-constants,pack-weights,legalize,fuse,schedule"


def one_node(
    operator: str, inputs: Mapping[str, Array], weights: Mapping[str, Array], **attributes: Any
) -> onnx.ModelProto:
    """A model of one node: `inputs` are fed, `weights` are constants."""
    node = helper.make_node(operator, [*inputs, *weights], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "one_node",
        [helper.make_tensor_value_info(n, 1, x.shape) for n, x in inputs.items()],
        [helper.make_tensor_value_info("y", 1, None)],
        [onnx.numpy_helper.from_array(w, n) for n, w in weights.items()],
    )
    opset = [helper.make_opsetid("", 20)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return onnx.shape_inference.infer_shapes(model)


def check(
    proto: onnx.ModelProto,
    feed: Mapping[str, Array],
    cpu: str,
    kernel: str | None,
    rtol: float = 1e-4,
    atol: float = 1e-4,
) -> None:
    """Compile for `cpu`, run, and compare; `kernel` names the rule that has to take it."""
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    wanted: Any = session.run(None, dict(feed))[0]
    model: Model = frontend.load(proto)
    context = Context(target.parse(cpu), pipeline.rules())
    module = pipeline.run(pipeline.parse(PIPELINE), model.module, context)
    (got,) = evaluate.evaluate(module, list(feed.values()))
    np.testing.assert_allclose(got, wanted, rtol=rtol, atol=atol)
    if kernel is not None:
        assert kernel in {record.rule for record in context.kernels}


def noise(*shape: int) -> Array:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype("float32")


@pytest.mark.parametrize("cpu", CPUS)
@drawn(
    10,
    60,
    batch=st.integers(1, 3),
    size=st.tuples(st.integers(1, 19), st.integers(1, 19)),
    window=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 9)),
    groups=st.sampled_from([1, 1, 1, 2, 3, 8]),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 3)] * 4),
)
def test_convolution(
    cpu: str,
    batch: int,
    size: tuple[int, int],
    window: tuple[int, int],
    channels: tuple[int, int],
    groups: int,
    strides: tuple[int, int],
    dilations: tuple[int, int],
    padding: tuple[int, int, int, int],
) -> None:
    for axis in (0, 1):
        reach = dilations[axis] * (window[axis] - 1) + 1
        if size[axis] + padding[axis] + padding[axis + 2] < reach:
            return
    x = noise(batch, channels[0] * groups, *size)
    w = noise(channels[1] * groups, channels[0], *window)
    attributes = dict(strides=strides, dilations=dilations, pads=padding, group=groups)
    check(
        one_node("Conv", {"x": x}, {"w": w, "b": noise(len(w))}, **attributes), {"x": x}, cpu, None
    )


@pytest.mark.parametrize("cpu", CPUS)
@drawn(
    10,
    60,
    lead=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    depth=st.integers(1, 67),
    columns=st.integers(1, 131),
)
def test_product_with_constant_weights(cpu: str, lead: list[int], depth: int, columns: int) -> None:
    x = noise(*lead, depth)
    check(one_node("MatMul", {"x": x}, {"w": noise(depth, columns)}), {"x": x}, cpu, "dense")


@pytest.mark.parametrize("cpu", CPUS)
@drawn(
    10,
    60,
    shapes=st.sampled_from([((), ()), ((3,), (3,)), ((2, 1), (3,)), ((1,), (4,)), ((2, 3), ())]),
    rows=st.integers(1, 29),
    depth=st.integers(1, 37),
    columns=st.integers(1, 41),
)
def test_product_of_two_activations(
    cpu: str, shapes: tuple[tuple[int, ...], tuple[int, ...]], rows: int, depth: int, columns: int
) -> None:
    feed = {"a": noise(*shapes[0], rows, depth), "b": noise(*shapes[1], depth, columns)}
    matrices = "batch-matmul" if min(rows, columns) > 1 else None  # others, where one is a vector
    check(one_node("MatMul", feed, {}), feed, cpu, matrices if depth > 1 else "elementwise")


@pytest.mark.parametrize("cpu", CPUS)
@drawn(
    10,
    60,
    channels=st.integers(2, 50),
    multiplier=st.integers(1, 2),
    size=st.tuples(st.integers(3, 15), st.integers(3, 15)),
    window=st.sampled_from([1, 2, 3, 5]),
    stride=st.integers(1, 2),
)
def test_depthwise_convolution(
    cpu: str, channels: int, multiplier: int, size: tuple[int, int], window: int, stride: int
) -> None:
    x = noise(1, channels, *size)
    w = noise(channels * multiplier, 1, window, window)
    pads = [window // 2] * 4
    proto = one_node(
        "Conv", {"x": x}, {"w": w}, strides=[stride, stride], pads=pads, group=channels
    )
    check(proto, {"x": x}, cpu, "depthwise-conv2d")


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize(
    ("size", "inputs", "outputs", "window", "stride"),
    [
        (56, 64, 64, 3, 1),
        (14, 256, 256, 3, 2),
        (7, 512, 512, 3, 1),
        (14, 1024, 256, 1, 1),
        (28, 256, 512, 1, 2),
        (112, 3, 64, 7, 2),
    ],
)
def test_convolutions_of_residual_networks(
    cpu: str, size: int, inputs: int, outputs: int, window: int, stride: int
) -> None:
    x = noise(1, inputs, size, size)
    w = noise(outputs, inputs, window, window) / np.sqrt(np.float32(inputs * window * window))
    pads = [window // 2] * 4
    check(
        one_node("Conv", {"x": x}, {"w": w}, strides=[stride, stride], pads=pads),
        {"x": x},
        cpu,
        None,
    )


@pytest.mark.parametrize("rows", [13, 128])
def test_loops_count_in_32_bits(rows: int) -> None:
    """Else code generation loses the hint that parts a ragged tile from the others."""
    chosen = target.parse("cpu")
    packed = np.zeros((3, 5, chosen.lanes()), "float32")
    rule = next(rule for rule in pipeline.rules() if plugin.name_of(type(rule)) == "dense")
    match = rule.match(contractions.dense((rows, 5), packed, 40, "float32"), chosen)
    scheduled = rule.schedule(match, rule.default(match, chosen)).mod["main"]
    counted: list[str] = []
    structural_walk(scheduled.body, (For, lambda loop: counted.append(str(loop.loop_var.ty.dtype))))
    assert set(counted) == {"int32"}


def depthwise_loops(
    size: int, channels: int, window: int, dilation: int = 1, threads: int = 2
) -> list[Any]:
    """The loops of a depthwise convolution, outermost first."""
    chosen, pad = target.parse("avx2", threads), window // 2 * dilation
    conv = contractions.Conv2d((1, 1), (pad, pad, pad, pad), (dilation, dilation), channels, 1)
    shape = (1, size, size, channels)
    kernel = contractions.depthwise_conv2d(shape, (window, window, channels), conv, "float32")
    rule = next(r for r in pipeline.rules() if plugin.name_of(type(r)) == "depthwise-conv2d")
    match = rule.match(kernel, chosen)
    loops: list[Any] = []
    scheduled = rule.schedule(match, rule.default(match, chosen)).mod["main"]
    structural_walk(scheduled.body, (For, lambda loop: loops.insert(0, loop)))
    return loops


@pytest.mark.parametrize(
    ("size", "channels", "window"),
    [(14, 64, 3), (14, 128, 3), (112, 64, 3), (112, 128, 3), (19, 960, 5), (14, 384, 7)],
)
@pytest.mark.parametrize("dilation", [1, 3])
def test_depthwise_convolutions_have_work_for_each_thread(
    size: int, channels: int, window: int, dilation: int
) -> None:
    loops = depthwise_loops(size, channels, window, dilation)
    tasks = [int(loop.extent) for loop in loops if loop.kind == ForKind.PARALLEL]
    assert min(tasks) >= 2


def serial(loops: Sequence[Any]) -> list[int]:
    """The extents of the serial loops, outermost first."""
    return [int(loop.extent) for loop in loops if loop.kind == ForKind.SERIAL]


@pytest.mark.parametrize(("dilation", "rows_inside"), [(1, True), (2, False)])
def test_rows_between_those_of_a_dilated_window_count(dilation: int, rows_inside: bool) -> None:
    """A panel's 5 rows of 44 lines find no place in the L1 cache, 3 rows of 42 do."""
    _, *extents = serial(depthwise_loops(40, 64, 3, dilation, threads=1))  # one task
    assert extents[:2] == ([4, 40] if rows_inside else [40, 4])  # panels, rows of the image


@pytest.mark.parametrize(("window", "rows_inside"), [(3, False), (7, True)])
def test_threads_go_through_small_windows_row_by_row(window: int, rows_inside: bool) -> None:
    extents = serial(depthwise_loops(40, 64, window))
    assert extents[:2] == ([4, 20] if rows_inside else [20, 4])  # panels, rows of a task
