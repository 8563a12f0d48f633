"""Software prefetch in products: where it is added, and where it would only be in the way."""

from dataclasses import replace

import numpy as np
import pytest

from hybridc.compiler import target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.interfaces import NotApplicable, PrimFunc
from hybridc.compiler.kernels.products import contractions, packing
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.schedules.dense import Dense

CPU = target.parse("avx512", threads=2)


def scheduled(rows: int, depth: int, columns: int, dtype: str = "float32") -> str:
    """The text of a product at its default point."""
    weights = "int8" if dtype == "uint8" else dtype
    group = packing.group_for(weights, CPU)
    packed = packing.pack_matrix(np.zeros((depth, columns), weights), CPU.lanes(), group)
    func: PrimFunc = contractions.dense((rows, depth), packed, columns, dtype)
    rule = Dense()
    match = rule.match(func, CPU)
    assert not isinstance(match, NotApplicable)
    return str(rule.schedule(match, rule.default(match, CPU)).mod["main"].script())


def prefetches(text: str) -> list[str]:
    return [line for line in text.splitlines() if "llvm.prefetch" in line]


def test_outputs_of_short_products_are_asked_for() -> None:
    lines = prefetches(scheduled(rows=3136, depth=64, columns=256))
    assert any(line.strip().endswith("1, 3, 1)") for line in lines)  # written, in the L1 cache


def test_weights_of_few_rows_are_asked_for_a_panel_ahead() -> None:
    lines = prefetches(scheduled(rows=49, depth=2048, columns=512))
    assert lines
    for line in lines:
        assert line.strip().endswith("0, 2, 1)")  # to be read, in the L2 cache
        assert "T.min(" in line  # the last panel has no next one


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_nothing_is_asked_for_where_arithmetic_takes_far_longer(dtype: str) -> None:
    assert not prefetches(scheduled(rows=4096, depth=8192, columns=1024, dtype=dtype))


@pytest.mark.parametrize(("vectors", "asked"), [(2, True), (4, False)])
def test_no_panel_is_asked_for_that_pushes_out_the_one_in_use(vectors: int, asked: bool) -> None:
    """Two of 590 KB find room in an L2 cache of 2 MB, two of 1.2 MB do not."""
    cpu = replace(CPU, l2=2 * 2**20)
    packed = packing.pack_matrix(np.zeros((4608, 512), np.float32), cpu.lanes())
    rule = Dense()
    match = rule.match(contractions.dense((16, 4608), packed, 512, "float32"), cpu)
    assert not isinstance(match, NotApplicable)
    point = {"rows": 4, "vectors": vectors, "chunk": 4, "panels": 4}
    text = str(rule.schedule(match, point).mod["main"].script())
    assert bool(prefetches(text)) is asked


def test_small_tiles_ask_once_in_many_steps() -> None:
    """A tile of 8 lines has no room for a request in each of its 96 steps."""
    lines = scheduled(rows=196, depth=96, columns=576).splitlines()
    first = next(i for i, line in enumerate(lines) if "llvm.prefetch" in line)
    loops = [line for line in lines[first:] if " in range(" in line]
    steps = int(loops[0].split("range(")[1].split(")")[0])
    assert steps >= 3
    assert 96 % steps == 0


@pytest.mark.parametrize(("rows", "columns"), [(196, 1024), (784, 512), (392, 512)])
def test_no_tile_is_unrolled_by_two_steps(rows: int, columns: int) -> None:
    """LLVM unrolls two steps whole, and then keeps accumulators of a full tile on the stack."""
    rule = Dense()
    packed = packing.pack_matrix(np.zeros((256, columns), np.float32), CPU.lanes())
    match = rule.match(contractions.dense((rows, 256), packed, columns, "float32"), CPU)
    assert not isinstance(match, NotApplicable)
    for chunk in (4, 7, 14):
        point = {"rows": 14, "vectors": 2, "chunk": chunk, "panels": 8}
        text = str(rule.schedule(match, point).mod["main"].script())
        assert prefetches(text)
        assert "in range(2):" not in text


@pytest.mark.parametrize("depth", [1, 7, 30, 64, 97])
def test_what_is_asked_for_changes_no_number(depth: int) -> None:
    cpu = target.parse("cpu", threads=2)
    numbers = np.random.default_rng(0)
    x, weight = (
        numbers.standard_normal(shape, np.float32) for shape in ((300, depth), (depth, 72))
    )
    packed = packing.pack_matrix(weight, cpu.lanes())
    rule = Dense()
    match = rule.match(contractions.dense(x.shape, packed, 72, "float32"), cpu)
    assert not isinstance(match, NotApplicable)
    func = rule.schedule(match, rule.default(match, cpu)).mod["main"]
    out = np.zeros((300, 72), np.float32)
    result = to_tensor(out)
    compile_kernel(func, cpu)["main"](to_tensor(x), to_tensor(packed), result)
    np.testing.assert_allclose(to_numpy(result, out.dtype), x @ weight, rtol=1e-4, atol=1e-4)
