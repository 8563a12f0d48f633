"""The rules for memory-bound kernels: which takes what, and that it makes vectors and threads."""

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tvm
from kernel_builders import floats, operator
from kernel_corpus import KERNELS
from tvm import relax, tirx
from tvm_ffi import structural_walk

from hybridc.compiler import pipeline, plugin, target
from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc
from hybridc.compiler.target import Target

CPU = target.parse("avx2", threads=2)
BUILDERS = dict(KERNELS)

TAKEN_BY = {
    "bias and relu": "elementwise",
    "concat, odd": "elementwise",
    "take rows": "elementwise",
    "transpose heads": "elementwise",
    "transpose to channels last": "transpose",
    "transpose and add": "transpose",
    "mean of rows": "reduction",
    "variance": "reduction",
    "global average, channels first": "reduction",
    "global average, channels last": "reduction",
    "max pool, channels last": "pooling",
    "average pool": "pooling",
    "softmax of 197": "softmax",
    "softmax across": "softmax",
    "softmax in fast math": "softmax",
    "log softmax": "softmax",
    "layer norm of 768": "layer-norm",
    "layer norm of two axes": "layer-norm",
    "layer norm and gelu": "layer-norm",
    "rms norm": "layer-norm",
    "argmax": "reduction",
    "cumulative sum": "fallback",
    "mean of everything": "fallback",
}
# What has no axis to put vectors on, and what TVM's own templates write as scalar loops.
SCALAR = {
    "one number",
    "relu of one element",
    "relu without axes",
    "cumulative sum",
    "sort",
    "concat, odd",
    "slice",
    "softmax of 3",
    "reduce one element",
}


def first_match(func: PrimFunc, cpu: Target = CPU) -> tuple[str, Point, PrimFunc]:
    """The rule that takes a kernel, its default point, and the kernel as it schedules it."""
    for rule in pipeline.rules():
        match: Any = rule.match(func, cpu)
        if not isinstance(match, NotApplicable):
            point = rule.default(match, cpu)
            return plugin.name_of(type(rule)), point, rule.schedule(match, point).mod["main"]
    raise AssertionError("the fallback takes everything")


def kernels(name: str) -> Iterator[tuple[str, Point, PrimFunc]]:
    return (first_match(func) for func in BUILDERS[name](CPU))


def loops(func: PrimFunc, kind: int) -> list[int]:
    """The extents of a function's loops of one kind."""
    found: list[int] = []

    def visit(loop: Any) -> None:
        if int(loop.kind) == kind:
            found.append(int(loop.extent))

    structural_walk(func.body, (tirx.For, visit))
    return found


@pytest.mark.parametrize("name", TAKEN_BY)
def test_the_rule_for_a_kernel(name: str) -> None:
    assert TAKEN_BY[name] in {rule for rule, _, _ in kernels(name)}


@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in SCALAR])
def test_every_kernel_has_vectors(name: str) -> None:
    for rule, point, func in kernels(name):
        assert loops(func, tirx.ForKind.VECTORIZED), (rule, point)


@pytest.mark.parametrize("name", ["softmax of 197", "layer norm of 77"])
def test_odd_rows_get_whole_vectors_and_a_narrower_last_one(name: str) -> None:
    for _, _, func in kernels(name):
        widths = set(loops(func, tirx.ForKind.VECTORIZED))
        assert CPU.lanes() in widths
        assert any(width % CPU.lanes() for width in widths)
        assert "T.where" not in func.script()


@pytest.mark.parametrize("name", ["gelu", "NaN to zero"])
def test_odd_extents_get_whole_vectors_that_overlap(name: str) -> None:
    for _, _, func in kernels(name):
        assert set(loops(func, tirx.ForKind.VECTORIZED)) == {CPU.lanes()}
        assert "T.where" not in func.script()


def test_threads_where_the_work_outweighs_waking_them() -> None:
    for name, wanted in (("add, long", True), ("broadcast both ways", False)):
        for _, point, func in kernels(name):
            assert bool(point["threads"]) is wanted
            assert bool(loops(func, tirx.ForKind.PARALLEL)) is wanted


@pytest.mark.parametrize(("name", "width"), [("avx2", 2048), ("avx512", 256)])
def test_sums_far_apart_stay_in_registers_where_those_hold_a_stretch(name: str, width: int) -> None:
    cpu = target.parse(name, threads=2)
    (mean,) = operator(lambda x: relax.op.mean(x, [0]), *floats([64, 4096]))(cpu)
    rule, point, _ = first_match(mean, cpu)
    assert (rule, point) == ("reduction", {"width": width, "threads": 1})


@pytest.mark.parametrize(
    ("name", "columns", "width"), [("avx2", 1000, 8), ("avx512", 128, 16), ("avx512", 1000, 64)]
)
def test_softmax_takes_several_vectors_at_a_time_of_long_rows_alone(
    name: str, columns: int, width: int
) -> None:
    cpu = target.parse(name, threads=2)
    (func,) = operator(relax.op.nn.softmax, *floats([1536, columns]))(cpu)
    rule, point, _ = first_match(func, cpu)
    assert (rule, point) == ("softmax", {"width": width, "threads": 1})


def test_a_chain_of_operators_is_one_pass_over_memory() -> None:
    for _, _, func in kernels("bias and relu"):
        assert "alloc_buffer" not in func.script()


def test_the_stages_of_softmax_run_row_by_row() -> None:
    """Intermediate buffers of a row only: compaction shrinks them to what one row touches."""
    ((_, _, func),) = kernels("softmax of 128")
    lowered = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    for step in (
        tvm.s_tir.transform.LowerInitBlock(),
        tvm.s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        tvm.s_tir.transform.ConvertBlocksToOpaque(),
        tvm.s_tir.transform.CompactBufferAllocation(),
    ):
        lowered = step(lowered)
    shapes = re.findall(r"alloc_buffer\(\(([^)]*\)?[^)]*)\)", lowered.script())
    elements = [np.prod([int(n) for n in re.findall(r"int64\((\d+)\)", s)]) for s in shapes]
    assert elements
    assert max(elements) <= 128


def test_softmax_of_minus_infinities_and_large_numbers() -> None:
    """Masked scores have exactly no weight, and large ones do not overflow."""
    (builder,) = (BUILDERS[name] for name in ("softmax in fast math",))
    (func,) = builder(CPU)
    _, _, scheduled = first_match(func)
    x = np.full((9, 77), -np.inf, np.float32)
    x[:, :3] = [1000.0, 1000.0, 998.0]
    out = tvm.runtime.tensor(np.zeros((9, 77), np.float32))
    module = tvm.IRModule({"main": scheduled.with_attr("global_symbol", "main")})
    tvm.compile(module, target=CPU.tvm)["main"](tvm.runtime.tensor(x), out)
    weights = np.exp([0.0, 0.0, -2.0]) / np.exp([0.0, 0.0, -2.0]).sum()
    np.testing.assert_allclose(out.numpy()[:, :3], np.tile(weights, (9, 1)), rtol=1e-6)
    assert not out.numpy()[:, 3:].any()


def test_layer_norm_far_from_zero() -> None:
    """A mean of 1000 does not drown a deviation of 1."""
    (func,) = BUILDERS["layer norm of 768"](CPU)
    _, _, scheduled = first_match(func)
    x = (1000 + np.random.default_rng(0).standard_normal((4, 768))).astype(np.float32)
    scale, shift = np.ones(768, np.float32), np.zeros(768, np.float32)
    out = tvm.runtime.tensor(np.zeros((4, 768), np.float32))
    module = tvm.IRModule({"main": scheduled.with_attr("global_symbol", "main")})
    tvm.compile(module, target=CPU.tvm)["main"](*map(tvm.runtime.tensor, (x, scale, shift)), out)
    exact = x.astype(np.float64)
    mean, variance = exact.mean(-1, keepdims=True), exact.var(-1, keepdims=True)
    np.testing.assert_allclose(out.numpy(), (exact - mean) / np.sqrt(variance + 1e-5), atol=2e-4)
