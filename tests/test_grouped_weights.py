"""Products of few rows with weights of 8 and 4 bits, added up group by group."""

from typing import Any

import numpy as np
import pytest
from test_weight_only import unpacked, weights

from hybridc.compiler import target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.kernels import bfloat16_lowering
from hybridc.compiler.kernels.products import grouped_weights, weight_only
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import group_quantization
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.schedules.grouped_weights import GroupedWeights

CPU = target.parse("cpu", threads=2)
RULE = GroupedWeights()


def built(
    rows: tuple[int, ...], matrix: Array, bits: int, group: int, cpu: target.Target = CPU
) -> tuple[Any, Array, Array, Array]:
    """The kernel's match, its parameters, and the weights that these stand for."""
    quantized = group_quantization.quantize(matrix, bits, group)
    inputs, outputs = matrix.shape
    width = weight_only.panel_width(int(np.prod(rows)), outputs, cpu)
    integers, scales = group_quantization.packed(quantized, width)
    wide = unpacked(integers, scales, bits, inputs, outputs)
    held = grouped_weights.stored(integers, bits)
    func = grouped_weights.dense((*rows, inputs), held, scales, outputs, bits)
    return RULE.match(func, cpu), held, scales, wide


def run(match: Any, point: Any, x: Array, integers: Array, scales: Array, outputs: int) -> Array:
    """What a scheduled kernel computes."""
    func = bfloat16_lowering.lowered(RULE.schedule(match, point).mod["main"], CPU)
    out = to_tensor(np.full((*x.shape[:-1], outputs), np.nan, np.float32))
    compile_kernel(func, CPU)["main"](to_tensor(x), to_tensor(integers), to_tensor(scales), out)
    return to_numpy(out, np.dtype(np.float32))


SHAPES = [
    ((1,), 64, 96),
    ((1,), 1, 1),
    ((1,), 65, 33),
    ((2, 1), 100, 47),
    ((2,), 129, 70),
    ((1, 1), 512, 64),
    ((3,), 40, 72),
]


@pytest.mark.parametrize(("bits", "group"), [(8, 32), (8, 128), (4, 16), (4, 32)])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_a_kernel_multiplies_by_what_the_integers_stand_for(
    rows: tuple[int, ...], inputs: int, outputs: int, bits: int, group: int
) -> None:
    match, integers, scales, wide = built(rows, weights(inputs, outputs), bits, group)
    x = np.random.default_rng(1).standard_normal((*rows, inputs)).astype(np.float32)
    size = np.abs(x).astype(np.float64)
    wanted = x.astype(np.float64) @ wide
    # Of 4 bits, integers are up to 15 where the weight is 7 at most, and 8 are taken off again:
    # each of the K roundings is of 2^-24 of up to so much.
    steps = np.abs(wide) if bits == 8 else 15 * _scales(scales, match.size, inputs, outputs)
    bound = inputs * 2.0**-23 * (size @ np.abs(wide)) + 2.0**-23 * 16 * (size @ steps) + 1e-30
    for vectors in RULE.knobs(match)["vectors"]:
        point = {**RULE.default(match, CPU), "vectors": vectors}
        got = run(match, point, x, integers, scales, outputs)
        assert (np.abs(got - wanted) <= bound).all()


def _scales(scales: Array, size: int, inputs: int, outputs: int) -> Array:
    """The scale of each weight [inputs, outputs]."""
    panels, groups, width = scales.shape
    flat = scales.astype(np.float64).transpose(1, 0, 2).reshape(groups, panels * width)
    return np.repeat(flat, size, axis=0)[:inputs, :outputs]


@pytest.mark.parametrize("cpu", ["avx2", "avx512"])
def test_tiles_of_few_rows_find_registers(cpu: str) -> None:
    named = target.parse(cpu, threads=2)
    assert [grouped_weights.fits(rows) for rows in (1, 3, 4)] == [True, True, False]
    for rows in (1, 2, 3):
        match, *_ = built((rows,), weights(64, 512), 4, 32, named)
        vectors = RULE.default(match, named)["vectors"]
        assert vectors >= 2
        assert 2 * rows * vectors + vectors + 2 <= named.vector_registers


def assembly(cpu: str, bits: int) -> list[str]:
    """The instructions of a large kernel's default."""
    named = target.parse(cpu, threads=2)
    match, *_ = built((1,), np.ones((512, 512), np.float32), bits, 32, named)
    scheduled = RULE.schedule(match, RULE.default(match, named)).mod["main"]
    text = compile_kernel(bfloat16_lowering.lowered(scheduled, named), named).mod
    return [line.split()[0] for line in text.inspect_source("asm").splitlines() if line.split()]


@pytest.mark.parametrize("cpu", ["avx2", "avx512"])
@pytest.mark.parametrize("bits", [8, 4])
def test_a_weight_costs_two_instructions_beside_its_multiply_add(cpu: str, bits: int) -> None:
    found = assembly(cpu, bits)
    conversions = found.count("vcvtdq2ps")
    assert conversions >= 32
    unpacking = ("vpmovsxbd",) if bits == 8 else ("vpand", "vandps", "vpandd", "vpsrad")
    assert sum(found.count(name) for name in unpacking) <= 1.3 * conversions
    added = [name for name in found if name.startswith("vfm") and name.endswith("ps")]
    assert len(added) >= conversions
    assert not {"vcvtsi2ss", "vpinsrb", "vpextrb"} & set(found)
