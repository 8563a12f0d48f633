"""Convolutions of groups that are no whole vectors of channels, beside ONNX Runtime."""

from typing import Any

import numpy as np
import pytest
from drawn import drawn
from hypothesis import strategies as st
from test_contractions import check, noise, one_node

from hybridc.compiler import target
from hybridc.compiler.kernels.products import contractions, packing, vector_width
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.kernels.products.packing import round_up
from hybridc.schedules.conv2d import Conv2d as Rule


@pytest.mark.parametrize("cpu", ["avx2", "avx512"])
@drawn(
    4,
    40,
    inputs=st.integers(2, 30),
    outputs=st.integers(1, 44),
    groups=st.sampled_from([2, 3, 5]),
    size=st.tuples(st.integers(1, 4), st.integers(3, 31)),
    window=st.integers(1, 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
)
def test_groups_of_any_size(
    cpu: str,
    inputs: int,
    outputs: int,
    groups: int,
    size: tuple[int, int],
    window: int,
    stride: int,
    dilation: int,
) -> None:
    if not target.parse(cpu).features <= target.parse("cpu").features:
        pytest.skip(f"this host has no {cpu}")
    x = noise(1, groups * inputs, *size)
    w = noise(groups * outputs, inputs, window, window)
    pad = dilation * (window - 1)  # an image of one row has a window of its own size at least
    attributes = dict(strides=[stride] * 2, dilations=[dilation] * 2, pads=[pad] * 4, group=groups)
    weights = {"w": w, "b": noise(len(w))}
    check(one_node("Conv", {"x": x}, weights, **attributes), {"x": x}, cpu, None)


@pytest.mark.parametrize("groups", [5, 37])
@pytest.mark.parametrize("each", [3, 12, 24, 40, 56])
def test_no_more_is_multiplied_than_whole_vectors_of_a_group(each: int, groups: int) -> None:
    """Odd numbers of groups were once merged into one, 37 times as much work."""
    weight = np.zeros((groups * each, 3, 3, each), np.float32)
    packed, left = packing.pack_filter(weight, groups, 16)
    multiplied = packed.size // (9 * groups)
    assert multiplied <= max(round_up(each, 16) * each, 16 * each)
    assert left == groups // vector_width.merged(each, groups, 16)


@pytest.mark.parametrize("vectors", [1, 2, 3, 4])
def test_tiles_end_with_a_group(vectors: int) -> None:
    """A tuner may ask for tiles of vectors that do not divide those of a group."""
    device: Any = target.parse("cpu", threads=2)
    weight = np.zeros((120, 3, 3, 24), np.float32)
    packed, left = packing.pack_filter(weight, 3, device.lanes())
    conv = Conv2d((1, 1), (1, 1, 1, 1), (1, 1), left, 24)
    rule = Rule()
    match: Any = rule.match(
        contractions.conv2d((1, 9, 9, 72), packed, 120, conv, "float32"), device
    )
    point = rule.canonical(match, {"rows": 4, "vectors": vectors, "chunk": 9, "panels": 9})
    assert match.problem.together % point["vectors"] == 0
    assert match.problem.panels(point["vectors"]) * point["vectors"] == packed.shape[0]
