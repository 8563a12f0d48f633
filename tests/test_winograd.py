"""Winograd's filtering against the convolution that it stands for."""

from unittest.mock import patch

import numpy as np
import pytest
from cpus import CPUS
from hypothesis import given, settings
from hypothesis import strategies as st
from test_contractions import FEW, check, noise, one_node

from hybridc.compiler import target
from hybridc.compiler.kernels.convolutions import winograd_cost, winograd_transforms
from hybridc.compiler.kernels.convolutions.winograd_work import Choice, Layer, Work
from hybridc.compiler.kernels.products.contractions import Conv2d

CONV = Conv2d(strides=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1), groups=1, inputs=64)
CPU = target.parse("avx512", threads=2)


@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("taps", [2, 3])
def test_one_dimension_is_a_correlation(outputs: int, taps: int) -> None:
    a_t, g, b_t = winograd_transforms.transforms(outputs, taps)
    rng = np.random.default_rng(0)
    data, filters = rng.standard_normal(outputs + taps - 1), rng.standard_normal(taps)
    wanted = [data[i : i + taps] @ filters for i in range(outputs)]
    np.testing.assert_allclose(a_t @ ((g @ filters) * (b_t @ data)), wanted, rtol=1e-12)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("tile", [2, 3, 4, 6])
@settings(FEW, max_examples=6)
@given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 11), st.integers(1, 9)),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 35)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    tiles=st.sampled_from([0, 12, 60]),
)
def test_convolution_of_any_size(
    cpu: str,
    tile: int,
    batch: int,
    size: tuple[int, int],
    channels: tuple[int, int],
    padding: tuple[int, int, int, int],
    tiles: int,
) -> None:
    if min(size[0] + padding[0] + padding[2], size[1] + padding[1] + padding[3]) < 3:
        return
    x = noise(batch, channels[0], *size)
    # Outputs of unit variance: rounding goes with the largest terms, not with each output.
    w = noise(channels[1], channels[0], 3, 3) / np.sqrt(np.float32(9 * channels[0]))
    bias = noise(channels[1])
    proto = one_node("Conv", {"x": x}, {"w": w, "b": bias}, pads=padding)
    with patch.object(winograd_cost, "choices", lambda *_: (Choice(tile, tiles),)):
        check(proto, {"x": x}, cpu, "winograd-conv2d")


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 3e38])
def test_weights_whose_sums_are_no_numbers_are_left_to_a_direct_convolution(value: float) -> None:
    """All of a tile would be NaN, where most of it is a number."""
    x, w = noise(1, 4, 8, 8), noise(8, 4, 3, 3)
    w[3, 2, 1, 0] = value
    proto = one_node("Conv", {"x": x}, {"w": w})
    with patch.object(winograd_cost, "choices", lambda *_: (Choice(4, 0),)):
        check(proto, {"x": x}, "cpu", "conv2d")


@pytest.mark.parametrize(
    ("shape", "columns", "side"),
    [
        ((1, 56, 56, 64), 64, 4),
        ((1, 28, 28, 128), 128, 4),
        ((8, 14, 14, 256), 256, 4),
        # Four tiles of F(4, 3) would want 38 MB of weights from memory.
        ((1, 7, 7, 512), 512, 2),
        # Measured: 25 and 62 us, against 32 of F(2, 3) and 118 of a direct convolution.
        ((1, 14, 14, 64), 64, 4),
        ((1, 7, 7, 160), 160, 2),
        # Transforms cost more than they save.
        ((1, 224, 224, 3), 64, 0),
        ((1, 3, 3, 4), 4, 0),
    ],
)
def test_the_model_chooses(shape: tuple[int, ...], columns: int, side: int) -> None:
    assert winograd_cost.choices(Layer(shape, columns, CONV), CPU)[0].side == side


@pytest.mark.parametrize(
    ("shape", "columns", "side"),
    [
        # Measured with weights in the caches: 78 us, against 108 of F(2, 3).
        ((1, 7, 7, 160), 160, 4),
        ((1, 3, 3, 4), 4, 0),
    ],
)
def test_larger_tiles_are_chosen_where_weights_stay_near(
    shape: tuple[int, ...], columns: int, side: int
) -> None:
    layer = Layer(shape, columns, CONV, near=True)
    assert winograd_cost.choices(layer, CPU)[0].side == side


@pytest.mark.parametrize(
    ("shape", "columns", "group", "side"),
    [
        # Measured in the caches of one thread (Zen 3), us: direct, F(2, 3), F(4, 3).
        ((1, 8, 8, 16), 32, 1, 4),  # 5.6, 3.8, 2.7
        ((1, 4, 4, 32), 64, 1, 2),  # 5.1, 3.4, 4.1
        ((1, 16, 16, 32), 32, 1, 4),  # 43.5, 32.9, 19.8
        ((4, 8, 8, 16), 24, 1, 4),  # 15.2, 16.2, 10.0
        ((1, 3, 3, 64), 64, 1, 0),  # 5.6, 6.7, 9.1
        # Bytes: windows 3.3, F(2, 3) 2.4; 3.3 and 2.0.
        ((1, 8, 8, 16), 32, 2, 2),
        ((1, 4, 4, 32), 64, 2, 2),
    ],
)
def test_the_model_chooses_for_one_thread_with_all_in_its_caches(
    shape: tuple[int, ...], columns: int, group: int, side: int
) -> None:
    cpu = target.parse("avx2", threads=1)
    layer = Layer(shape, columns, CONV, group, near=True)
    assert winograd_cost.choices(layer, cpu)[0].side == side


@pytest.mark.parametrize("threads", [1, 2, 8, 64])
@pytest.mark.parametrize("shape", [(1, 56, 56, 64), (1, 14, 14, 256), (1, 7, 7, 512)])
def test_tasks_keep_all_threads_busy(shape: tuple[int, ...], threads: int) -> None:
    cpu = target.parse("avx512", threads)
    columns = shape[-1]
    tiles = winograd_cost.tile_count(shape, CONV, 2)
    work = Work(2, tiles, tiles, columns, columns, cpu.lanes())
    cut = winograd_cost.cut(work, cpu)
    tasks = tiles // cut.tiles
    if cut.staged:
        tasks *= work.vectors // (cut.panels * cut.vectors)
    assert tasks >= min(threads, work.vectors)


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_tasks_leave_room_for_weights_that_every_group_of_tiles_reads(columns: int) -> None:
    """Half of a core's cache is enough for what a task transforms and multiplies."""
    work = Work(4, 144, 144, columns, columns, CPU.lanes(), near=True)
    cut = winograd_cost.cut(work, CPU)
    held = work.positions * cut.tiles * 4 * (columns + cut.panels * cut.vectors * work.lanes)
    assert held < CPU.l2 / 2


@pytest.mark.parametrize(("side", "bound"), [(2, 1e-6), (4, 4e-6)])
def test_error_stays_within_what_is_stated(side: int, bound: float) -> None:
    """Of the largest output, for weights and inputs of unit variance."""
    x = noise(1, 256, 14, 14)
    w = noise(256, 256, 3, 3) / np.sqrt(np.float32(256 * 9))
    with patch.object(winograd_cost, "choices", lambda *_: (Choice(side),)):
        proto = one_node("Conv", {"x": x}, {"w": w}, pads=[1] * 4)
        # The largest of 50,176 outputs of unit variance is above 4.
        check(proto, {"x": x}, "cpu", "winograd-conv2d", rtol=0, atol=4 * bound)
