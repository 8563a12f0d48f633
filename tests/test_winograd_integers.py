"""Winograd's filtering of bytes: exact, and only where nothing overflows."""

from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from drawn_models import compiled, noise
from hypothesis import given, settings
from hypothesis import strategies as st
from test_contractions import FEW
from test_integer_arithmetic import convolution, run_both
from test_rule_conformance import CPUS, runnable

from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.kernels.convolutions import winograd, winograd_cost, winograd_transforms
from hybridc.compiler.kernels.convolutions.winograd_work import Choice
from hybridc.compiler.kernels.products import packing
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.model import Array
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.schedules.winograd_conv2d import WinogradConv2d

DRAW = np.random.default_rng(0)
EXTREMES = (
    np.asarray([-127, 127], np.int8),
    np.asarray([0, 255], np.uint8),
)


def direct(x: Array, weight: Array, conv: Conv2d) -> Array:
    """The convolution in float64, which holds these integers exactly."""
    top, left, bottom, right = conv.padding
    image = torch.from_numpy(x.transpose(0, 3, 1, 2).astype(np.float64))
    padded = torch.nn.functional.pad(image, (left, right, top, bottom), value=conv.fill)
    window = torch.from_numpy(weight.transpose(0, 3, 1, 2).astype(np.float64))
    return np.asarray(torch.nn.functional.conv2d(padded, window)).transpose(0, 2, 3, 1)


@pytest.mark.parametrize("cpu", CPUS)
@settings(FEW, max_examples=12)
@given(
    batch=st.integers(1, 2),
    size=st.tuples(st.integers(1, 11), st.integers(1, 9)),
    channels=st.tuples(st.integers(1, 20), st.integers(1, 35)),
    padding=st.tuples(*[st.integers(0, 2)] * 4),
    fill=st.sampled_from([0, 3, 255]),
    extreme=st.booleans(),
)
def test_bytes_are_convolved_exactly(
    cpu: str,
    batch: int,
    size: tuple[int, int],
    channels: tuple[int, int],
    padding: tuple[int, int, int, int],
    fill: int,
    extreme: bool,
) -> None:
    if min(size[0] + padding[0] + padding[2], size[1] + padding[1] + padding[3]) < 3:
        return
    device = runnable(cpu)
    weights, data = EXTREMES if extreme else (np.arange(-128, 128), np.arange(256))
    weight = DRAW.choice(weights, (channels[1], 3, 3, channels[0])).astype(np.int8)
    x = DRAW.choice(data, (batch, *size, channels[0])).astype(np.uint8)
    assert winograd_transforms.fits_integers(weight)
    conv = Conv2d((1, 1), padding, (1, 1), 1, channels[0], fill)
    transformed = winograd_transforms.transform_filter(weight, winograd_transforms.INTEGER_SIDE)
    packed: Array = np.ascontiguousarray(
        [[packing.pack_matrix(matrix.T, device.lanes()) for matrix in row] for row in transformed]
    )
    func = winograd.conv2d(x.shape, packed, channels[1], conv)
    rule = WinogradConv2d()
    match: Any = rule.match(func, device)
    wanted = direct(x, weight, conv)
    kernel = compile_kernel(rule.schedule(match, rule.default(match, device)).mod["main"], device)
    out = to_tensor(np.full(wanted.shape, 77, np.int32))
    kernel["main"](to_tensor(x), to_tensor(packed), out)
    np.testing.assert_array_equal(to_numpy(out, np.dtype(np.int32)), wanted)


def test_sums_that_might_overflow_are_seen() -> None:
    assert winograd_transforms.fits_integers(np.full((8, 3, 3, 64), 127, np.int8))
    assert not winograd_transforms.fits_integers(np.full((8, 3, 3, 1024), 127, np.int8))


@pytest.mark.parametrize("zero", [0, 3, 200])
@pytest.mark.parametrize("signed", [False, True])
def test_a_quantised_model_takes_it_with_any_zero_point(zero: int, signed: bool) -> None:
    proto = convolution((1, 32, 13, 14), (40, 32, 3, 3), zero=zero, signed=signed, pads=[1] * 4)
    choice = Choice(winograd_transforms.INTEGER_SIDE)
    with patch.object(winograd_cost, "choices", lambda *_: (choice,)):
        outcome = compiled(proto, "avx2")
    run_both(proto, {"x": noise((1, 32, 13, 14))}, 0.3, outcome)
    assert "winograd-conv2d" in {kernel.rule for kernel in outcome.report.kernels}
