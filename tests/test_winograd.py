"""Winograd's filtering against the convolution that it stands for."""

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_contractions import CPUS, FEW, check, noise, one_node

from hybridc.compiler import winograd
from hybridc.compiler.contractions import Conv2d

CONV = Conv2d(strides=(1, 1), padding=(1, 1, 1, 1), dilation=(1, 1), groups=1, inputs=64)


@pytest.mark.parametrize("outputs", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("taps", [2, 3])
def test_one_dimension_is_a_correlation(outputs: int, taps: int) -> None:
    a_t, g, b_t = winograd.transforms(outputs, taps)
    rng = np.random.default_rng(0)
    data, filters = rng.standard_normal(outputs + taps - 1), rng.standard_normal(taps)
    wanted = [data[i : i + taps] @ filters for i in range(outputs)]
    np.testing.assert_allclose(a_t @ ((g @ filters) * (b_t @ data)), wanted, rtol=1e-12)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("tile", [2, 4])
@settings(FEW, max_examples=6)
@given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 11), st.integers(1, 9)),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 35)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
)
def test_convolution_of_any_size(
    cpu: str,
    tile: int,
    batch: int,
    size: tuple[int, int],
    channels: tuple[int, int],
    padding: tuple[int, int, int, int],
) -> None:
    if min(size[0] + padding[0] + padding[2], size[1] + padding[1] + padding[3]) < 3:
        return
    x = noise(batch, channels[0], *size)
    # Outputs of unit variance: rounding goes with the largest terms, not with each output.
    w = noise(channels[1], channels[0], 3, 3) / np.sqrt(np.float32(9 * channels[0]))
    bias = noise(channels[1])
    proto = one_node("Conv", {"x": x}, {"w": w, "b": bias}, pads=padding)
    with patch.object(winograd, "best_tile", lambda *_: tile):
        check(proto, {"x": x}, cpu, "winograd-conv2d")


def test_the_model_chooses_it_where_multiplications_dominate() -> None:
    assert winograd.best_tile((1, 56, 56, 64), 64, CONV) == 4


def test_the_model_leaves_small_convolutions_direct() -> None:
    assert winograd.best_tile((1, 3, 3, 4), 4, CONV) == 0


def test_error_stays_within_what_is_stated() -> None:
    """F(4, 3) within 1e-5 of the largest output, for weights and inputs of unit variance."""
    x = noise(1, 256, 14, 14)
    w = noise(256, 256, 3, 3) / np.sqrt(np.float32(256 * 9))
    with patch.object(winograd, "best_tile", lambda *_: 4):
        proto = one_node("Conv", {"x": x}, {"w": w}, pads=[1] * 4)
        check(proto, {"x": x}, "cpu", "winograd-conv2d", rtol=0, atol=5e-5)
