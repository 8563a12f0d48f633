"""Weights of 8 and 4 bits: what the integers stand for, and the kernels that unpack them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridc.compiler import target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.hardware.machine import Machine
from hybridc.compiler.kernels import bfloat16_lowering
from hybridc.compiler.kernels.products import weight_only
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import group_quantization
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.schedules.weight_only_dense import WeightOnlyDense

CPU = replace(target.parse("cpu", threads=2), machine=Machine())
RULE = WeightOnlyDense()


def weights(inputs: int, outputs: int, seed: int = 0) -> Array:
    """Normal weights, some columns of which are much larger than others."""
    draw = np.random.default_rng(seed)
    made = draw.standard_normal((inputs, outputs)) * 10.0 ** draw.integers(-3, 3, outputs)
    return made.astype(np.float32)


def unpacked(integers: Array, scales: Array, bits: int, inputs: int, outputs: int) -> Array:
    """The weights that a kernel's parameters stand for, element by element, by their definition."""
    panels, groups, width = scales.shape
    share = 1 if bits == 8 else 8
    depth = integers.shape[1] * share
    wide = np.zeros((depth, panels * width), np.float32)
    for k in range(depth):
        held = integers[:, k // share].astype(np.int64).reshape(-1)
        if bits == 4:
            held = (held >> 4 * (k % 8)) & 15
            held = held - 16 * (held >= 8)
        scale = scales[:, k // (depth // groups)].astype(np.float32).reshape(-1)
        wide[k] = held.astype(np.float32) * scale
    return wide[:inputs, :outputs]


def built(
    rows: Sequence[int], matrix: Array, bits: int, group: int, cpu: target.Target = CPU
) -> tuple[Any, Array, Array, group_quantization.Grouped]:
    """The kernel's match and its two packed parameters."""
    quantized = group_quantization.quantize(matrix, bits, group)
    inputs, outputs = matrix.shape
    width = weight_only.panel_width(int(np.prod(rows)), outputs, cpu)
    integers, scales = group_quantization.packed(quantized, width)
    func = weight_only.dense((*rows, inputs), integers, scales, outputs, bits)
    return RULE.match(func, cpu), integers, scales, quantized


def run(match: Any, point: Any, x: Array, integers: Array, scales: Array, outputs: int) -> Array:
    """What a scheduled kernel computes."""
    func = bfloat16_lowering.lowered(RULE.schedule(match, point).mod["main"], CPU)
    out = to_tensor(np.zeros((*x.shape[:-1], outputs), np.float32))
    compile_kernel(func, CPU)["main"](to_tensor(x), to_tensor(integers), to_tensor(scales), out)
    return to_numpy(out, np.dtype(np.float32))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 200), st.integers(1, 70), st.sampled_from([8, 4]), st.integers(1, 300), st.data()
)
def test_every_weight_is_within_half_a_step(
    inputs: int, outputs: int, bits: int, group: int, data: st.DataObject
) -> None:
    matrix = weights(inputs, outputs, data.draw(st.integers(0, 99)))
    quantized = group_quantization.quantize(matrix, bits, group)
    steps = np.repeat(quantized.scales, quantized.size, axis=0)[:inputs]
    assert (np.abs(quantized.dequantized() - matrix) <= steps * np.float32(0.5 + 1e-6)).all()
    assert np.abs(quantized.integers).max(initial=0) <= group_quantization.LEVELS[bits]
    assert quantized.size <= max(group, 8)
    narrow = quantized.scales.astype(ml_dtypes.bfloat16).astype(np.float32)
    np.testing.assert_array_equal(narrow, quantized.scales)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 150),
    st.integers(1, 70),
    st.sampled_from([8, 4]),
    st.integers(1, 200),
    st.sampled_from([8, 16, 32, 64]),
)
def test_packed_weights_stand_for_the_same_numbers_to_the_bit(
    inputs: int, outputs: int, bits: int, group: int, width: int
) -> None:
    quantized = group_quantization.quantize(weights(inputs, outputs), bits, group)
    integers, scales = group_quantization.packed(quantized, width)
    wide = unpacked(integers, scales, bits, inputs, outputs)
    np.testing.assert_array_equal(wide, quantized.dequantized())


@pytest.mark.parametrize("bits", [8, 4])
def test_a_search_is_never_further_from_the_weights(bits: int) -> None:
    matrix = weights(256, 33)
    plain, searched = (
        np.square(group_quantization.quantize(matrix, bits, 32, search).dequantized() - matrix)
        .reshape(8, 32, 33)
        .sum(axis=1)
        for search in (False, True)
    )
    assert (searched <= plain * (1 + 1e-5)).all()
    assert bits == 8 or searched.sum() < 0.95 * plain.sum()


@pytest.mark.parametrize("fill", [0, 1e-44, 3e38])
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_of_nothing_and_of_nearly_everything_stay_numbers(fill: float, bits: int) -> None:
    narrow = np.full((9, 3), fill, np.float32)
    quantized = group_quantization.quantize(narrow, bits, 4)
    wide = quantized.dequantized()
    assert np.isfinite(wide).all()
    np.testing.assert_allclose(wide, narrow, rtol=2**-8, atol=1e-38)


SHAPES = [
    ((1,), 64, 96),
    ((1,), 1, 1),
    ((1,), 65, 33),
    ((2, 1), 100, 47),
    ((3,), 32, 7),
    ((2, 3), 257, 130),
    ((16,), 96, 64),
    ((17,), 40, 24),
    ((2, 40), 130, 65),
]


@pytest.mark.parametrize(("bits", "group"), [(8, 32), (4, 16)])
@pytest.mark.parametrize(("rows", "inputs", "outputs"), SHAPES)
def test_a_kernel_multiplies_by_what_the_integers_stand_for(
    rows: tuple[int, ...], inputs: int, outputs: int, bits: int, group: int
) -> None:
    matrix = weights(inputs, outputs)
    match, integers, scales, _ = built(rows, matrix, bits, group)
    x = np.random.default_rng(1).standard_normal((*rows, inputs)).astype(np.float32)
    wide = unpacked(integers, scales, bits, inputs, outputs).astype(np.float64)
    wanted = x.astype(np.float64) @ wide
    # Sums of K products in fp32, each rounded by 2^-24 of what has been added up.
    bound = inputs * 2.0**-23 * (np.abs(x).astype(np.float64) @ np.abs(wide)) + 1e-30
    default = RULE.default(match, CPU)
    for point in (default, {**default, "cached": 1 - default["cached"]}):
        got = run(match, point, x, integers, scales, outputs)
        assert (np.abs(got - wanted) <= bound).all()


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 20),
    st.integers(1, 150),
    st.integers(1, 60),
    st.sampled_from([(8, 32), (8, 128), (4, 32), (4, 16)]),
)
def test_a_product_is_as_near_to_that_of_the_weights_as_their_steps_say(
    rows: int, inputs: int, outputs: int, how: tuple[int, int]
) -> None:
    matrix = weights(inputs, outputs)
    match, integers, scales, quantized = built((rows,), matrix, *how)
    x = np.random.default_rng(2).standard_normal((rows, inputs)).astype(np.float32)
    got = run(match, RULE.default(match, CPU), x, integers, scales, outputs)
    steps = np.repeat(quantized.scales, quantized.size, axis=0)[:inputs].astype(np.float64)
    size = np.abs(x).astype(np.float64)
    bound = size @ (steps / 2) + inputs * 2.0**-22 * (size @ np.abs(matrix)) + 1e-30
    assert (np.abs(got - x.astype(np.float64) @ matrix) <= bound * (1 + 1e-6)).all()


def assembly(cpu: str, rows: int, bits: int) -> list[str]:
    """The instructions of a large kernel's default."""
    named = target.parse(cpu, threads=2)
    match, *_ = built((rows,), np.ones((256, 512), np.float32), bits, 32, named)
    scheduled = RULE.schedule(match, RULE.default(match, named)).mod["main"]
    text = compile_kernel(bfloat16_lowering.lowered(scheduled, named), named).mod
    return [line.split()[0] for line in text.inspect_source("asm").splitlines() if line.split()]


@pytest.mark.parametrize("cpu", ["avx2", "avx512"])
@pytest.mark.parametrize("rows", [1, 16, 128])
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_are_unpacked_by_vectors(cpu: str, rows: int, bits: int) -> None:
    found = assembly(cpu, rows, bits)
    widening = "vpmovsxbd" if bits == 8 else "vpsrad"
    assert {widening, "vcvtdq2ps"} <= set(found)
    assert any(name.startswith("vfm") and name.endswith("ps") for name in found)
    scalar = {"vcvtsi2ss", "vcvtsi2ssl", "vfmadd231ss", "vfmadd213ss", "vpinsrb", "vpextrb"}
    assert not scalar & set(found)
    assert not any("gather" in name for name in found)


@pytest.mark.parametrize("cpu", ["avx2", "avx512"])
def test_few_rows_unpack_in_registers_and_many_once(cpu: str) -> None:
    named = target.parse(cpu, threads=2)
    cached = []
    for rows in (1, 4, 16, 1024):
        match, *_ = built((rows,), np.ones((768, 768), np.float32), 8, 128, named)
        cached.append(RULE.default(match, named)["cached"])
    assert cached == [0, 0, 1, 1]


def test_integers_pay_where_weights_are_waited_for() -> None:
    """From memory four bytes take longer than one and its unpacking; from a cache they do not."""
    large = (4096, 4096)
    far = [weight_only.pays(rows, large, 8, False, CPU) for rows in (1, 6, 128, 4096)]
    near = [weight_only.pays(rows, large, 8, True, CPU) for rows in (1, 6, 128)]
    assert (far, near) == ([True, True, False, False], [True, False, False])
    assert not weight_only.pays(6, (64, 64), 8, True, CPU)
