"""Products of bytes in windows: exact for all extremes, and chosen where they pay."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_contractions import FEW
from tvm import tirx

from hybridc.compiler import target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.kernels.products import byte_packing, byte_windows
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.passes import _byte_windows
from hybridc.schedules.byte_windows import ByteWindows

CPU = target.parse("avx2", threads=2)
DRAW = np.random.default_rng(0)
BELL = np.clip(np.round(DRAW.normal(0, 38, 4096)), -127, 127)
KNOBS: tuple[str, ...] = ("rows", "vectors", "chunk", "panels")
# Activations and weights.
VALUES = {
    "bell": (np.arange(256), BELL),
    "bell, largest": (np.array([255]), BELL),
    "drawn": (np.arange(256), np.arange(-128, 128)),
    "mixed": (np.array([0, 255]), np.array([-128, 127])),
    "largest": (np.array([255]), np.array([127])),
    "smallest": (np.array([255]), np.array([-128])),
    "zero": (np.arange(256), np.array([0])),
}


def multiplied(x: Array, packed: tuple[Array, Array], columns: int, point: Any = None) -> Array:
    """The kernel's product."""
    func = byte_windows.dense(x.shape, packed, columns, "uint8")
    return run(func, (x, *packed), (*x.shape[:-1], columns), point)


def run(func: Any, operands: Sequence[Array], shape: Sequence[int], point: Any = None) -> Array:
    """A kernel's result at a point, else at the default one."""
    rule = ByteWindows()
    match: Any = rule.match(func, CPU)
    named: dict[str, int] = dict(zip(KNOBS, point or (), strict=False))
    chosen = rule.canonical(match, named) if point else rule.default(match, CPU)
    kernel = compile_kernel(rule.schedule(match, chosen).mod["main"], CPU)
    out = to_tensor(np.full(shape, 77, np.int32))
    kernel["main"](*map(to_tensor, operands), out)
    return to_numpy(out, np.dtype(np.int32))


@FEW
@given(
    lead=st.sampled_from([(17,), (2, 3), (1, 5, 7), (29,), (64,), (1, 3, 8)]),
    depth=st.sampled_from([16, 17, 31, 32, 40, 64, 99, 144]),
    panels=st.integers(1, 6),
    kind=st.sampled_from(sorted(VALUES)),
    point=st.sampled_from([None, (3, 1, 2, 1), (8, 2, 1, 2), (1, 1, 1, 1)]),
)
def test_bytes_are_multiplied_exactly(
    lead: tuple[int, ...], depth: int, panels: int, kind: str, point: Any
) -> None:
    data, weights = VALUES[kind]
    x = DRAW.choice(data, (*lead, depth)).astype(np.uint8)
    weight = DRAW.choice(weights, (depth, 8 * panels)).astype(np.int8)
    wanted = x.astype(np.int64) @ weight.astype(np.int64)
    got = multiplied(x, byte_packing.pack(weight[np.newaxis]), 8 * panels, point)
    np.testing.assert_array_equal(got, wanted)


@FEW
@given(
    columns=st.sampled_from([17, 18, 20, 21, 30, 36, 47, 100]),
    depth=st.sampled_from([16, 40, 99]),
    kind=st.sampled_from(sorted(VALUES)),
    point=st.sampled_from([None, (3, 1, 2, 1), (8, 2, 1, 2), (4, 2, 1, 1), (5, 1, 1, 99)]),
)
def test_columns_need_not_fill_vectors(columns: int, depth: int, kind: str, point: Any) -> None:
    data, weights = VALUES[kind]
    x = DRAW.choice(data, (29, depth)).astype(np.uint8)
    weight = DRAW.choice(weights, (depth, columns)).astype(np.int8)
    whole = np.pad(weight, ((0, 0), (0, -columns % 8)))
    wanted = x.astype(np.int64) @ weight.astype(np.int64)
    got = multiplied(x, byte_packing.pack(whole[np.newaxis]), columns, point)
    np.testing.assert_array_equal(got, wanted)


def test_few_columns_are_left_to_pairs() -> None:
    few, more = (np.zeros((64, columns), np.int8) for columns in (12, 20))
    assert _byte_windows.of_matrix(few, (64,), CPU) is None
    packed = _byte_windows.of_matrix(more, (64,), CPU)
    assert packed is not None
    assert packed[0].shape[0] == 3


def convolved(x: Array, weight: Array, conv: Conv2d) -> Array:
    """The convolution of bytes `[N, H, W, C]` with `[O, KH, KW, C]`, by numpy."""
    top, left, bottom, right = conv.padding
    pads = ((0, 0), (top, bottom), (left, right), (0, 0))
    padded = np.pad(x.astype(np.int64), pads, constant_values=conv.fill)
    height, width = conv.output_size(x.shape[1:3], weight.shape[1:3])
    (down, along), (apart, _) = conv.strides, conv.dilation
    made = np.zeros((x.shape[0], height, width, len(weight)), np.int64)
    for i in range(weight.shape[1]):
        for j in range(weight.shape[2]):
            rows = padded[:, i * apart :][:, : down * (height - 1) + 1 : down]
            pixels = rows[:, :, j:][:, :, : along * (width - 1) + 1 : along]
            made += pixels @ weight[:, i, j].T.astype(np.int64)
    return made


@FEW
@given(
    image=st.sampled_from([(1, 9, 11), (2, 7, 7), (1, 12, 30)]),
    window=st.sampled_from([(1, 1), (3, 3), (7, 7), (2, 5)]),
    channels=st.sampled_from([1, 3, 8, 16, 20]),
    panels=st.integers(1, 4),
    strides=st.sampled_from([(1, 1), (2, 2), (1, 3)]),
    padding=st.sampled_from([(0, 0, 0, 0), (3, 3, 3, 3), (1, 0, 2, 1)]),
    apart=st.sampled_from([1, 2]),
    kind=st.sampled_from(sorted(VALUES)),
)
def test_bytes_are_convolved_exactly(
    image: tuple[int, int, int],
    window: tuple[int, int],
    channels: int,
    panels: int,
    strides: tuple[int, int],
    padding: tuple[int, int, int, int],
    apart: int,
    kind: str,
) -> None:
    conv = Conv2d(strides, padding, (apart, 1), 1, channels, fill=int(DRAW.integers(256)))
    if min(conv.output_size(image[1:], window)) < 1:
        return
    data, weights = VALUES[kind]
    x = DRAW.choice(data, (*image, channels)).astype(np.uint8)
    weight = DRAW.choice(weights, (8 * panels, *window, channels)).astype(np.int8)
    packed = byte_packing.pack(weight.reshape(8 * panels, window[0], -1).transpose(1, 2, 0))
    func = byte_windows.conv2d(x.shape, packed, window, 8 * panels, conv, "uint8")
    wanted = convolved(x, weight, conv)
    np.testing.assert_array_equal(run(func, (x, *packed), wanted.shape), wanted)


@pytest.mark.parametrize("kind", sorted(VALUES))
def test_no_sum_can_leave_16_bits(kind: str) -> None:
    weight = DRAW.choice(VALUES[kind][1], (1, 99, 24)).astype(np.int8)
    table, order = byte_packing.pack(weight)
    assert table.shape[1] >= 7
    for panel, (windows, places) in enumerate(zip(table, order, strict=True)):
        stands = np.zeros((99, 8), np.int64)
        for i, (patterns, weights) in enumerate(windows.reshape(-1, 2, 4, 8, 4).astype(int)):
            first = min(16 * int(places[1 + i]), 99 - 16)
            for lane in range(8):
                np.add.at(stands[:, lane], first + patterns[:, lane], weights[:, lane])
                # By vector, half of a lane, and byte; those of four join two vectors.
                sums = weights[:, lane].reshape(4, 2, 2)
                joined = sums.reshape(2, 2, 2, 2).transpose(0, 2, 1, 3).reshape(4, 4)
                each = joined if i < places[0] else sums.reshape(8, 2)
                assert np.maximum(each, 0).sum(axis=1).max() <= 128
                assert np.minimum(each, 0).sum(axis=1).min() >= -128
        np.testing.assert_array_equal(stands, weight[0, :, 8 * panel : 8 * panel + 8])


def test_equal_weights_are_packed_alike() -> None:
    weight = DRAW.choice(BELL, (1, 64, 16)).astype(np.int8)
    for one, other in zip(byte_packing.pack(weight), byte_packing.pack(weight), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("rows", "weights", "cpu", "wanted"),
    [
        ((197,), (768, 16), "avx2", True),
        ((1, 14, 14), (64, 8), "avx2", True),
        ((9,), (768, 16), "avx2", True),
        ((8,), (768, 16), "avx2", False),  # few rows wait for memory
        ((197,), (768, 20), "avx2", True),  # the last vector is filled with zeros
        ((197,), (768, 12), "avx2", False),  # no whole tile
        ((197,), (8, 16), "avx2", False),  # no whole window
        ((197,), (768, 16), "avx512", False),
        ((197,), (768, 16), '{"kind": "llvm", "mcpu": "alderlake"}', False),  # has VNNI
    ],
)
def test_they_are_chosen_where_they_pay(
    rows: tuple[int, ...], weights: tuple[int, int], cpu: str, wanted: bool
) -> None:
    weight = DRAW.choice(BELL, weights).astype(np.int8)
    chosen = _byte_windows.of_matrix(weight, rows, target.parse(cpu, threads=2))
    assert (chosen is not None) is wanted


def test_the_largest_weights_are_left_to_pairs() -> None:
    extreme = np.full((64, 16), -128, np.int8)
    assert _byte_windows.of_matrix(extreme, (64,), CPU) is None


def test_open_rows_are_left_to_pairs() -> None:
    batch: Any = tirx.Var("batch", "int64")
    weight = DRAW.choice(BELL, (64, 16)).astype(np.int8)
    assert _byte_windows.of_matrix(weight, (batch, 64), CPU) is None
