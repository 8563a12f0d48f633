"""Convolutions whose taps share what they read, and whose vectors hold several groups."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_contractions import check, noise, one_node

from hybridc.compiler import frontend, pipeline, target
from hybridc.compiler.interfaces import Context

FEW = settings(max_examples=8, deadline=None, derandomize=True)
CPUS = ("avx2", "avx512")


@pytest.mark.parametrize("cpu", CPUS)
@FEW
@given(
    channels=st.sampled_from([2, 4, 8]),
    vectors=st.integers(1, 3),
    size=st.tuples(st.integers(1, 17), st.integers(1, 23)),
    window=st.tuples(st.integers(1, 5), st.integers(1, 7)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.tuples(*[st.integers(0, 3)] * 4),
)
def test_groups_within_a_vector(
    cpu: str,
    channels: int,
    vectors: int,
    size: tuple[int, int],
    window: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    padding: tuple[int, int, int, int],
) -> None:
    skip_unless_runnable(cpu)
    for axis in (0, 1):
        reach = dilations[axis] * (window[axis] - 1) + 1
        if size[axis] + padding[axis] + padding[axis + 2] < reach:
            return
    groups = vectors * 16 // channels
    x, w = noise(2, 16 * vectors, *size), noise(16 * vectors, channels, *window)
    attributes = dict(strides=strides, dilations=dilations, pads=padding, group=groups)
    weights = {"w": w, "b": noise(len(w))}
    check(one_node("Conv", {"x": x}, weights, **attributes), {"x": x}, cpu, "conv2d")


@pytest.mark.parametrize("cpu", CPUS)
@FEW
@given(
    inputs=st.integers(1, 15),
    outputs=st.integers(1, 40),
    size=st.tuples(st.integers(5, 17), st.integers(5, 33)),
    window=st.tuples(st.integers(1, 5), st.integers(2, 8)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 3)),
    dilation=st.integers(1, 2),
    padding=st.integers(3, 7),
)
def test_few_channels(
    cpu: str,
    inputs: int,
    outputs: int,
    size: tuple[int, int],
    window: tuple[int, int],
    strides: tuple[int, int],
    dilation: int,
    padding: int,
) -> None:
    skip_unless_runnable(cpu)
    x, w = noise(1, inputs, *size), noise(outputs, inputs, *window)
    attributes = dict(strides=strides, dilations=(1, dilation), pads=[padding] * 4)
    weights = {"w": w, "b": noise(len(w))}
    check(one_node("Conv", {"x": x}, weights, **attributes), {"x": x}, cpu, None)


def test_no_lane_gathers_its_activation() -> None:
    """Channels of a group are shuffled in registers, and no weight of another group is kept."""
    x, w = noise(1, 32, 9, 9), noise(32, 4, 3, 3)
    model: Any = frontend.load(one_node("Conv", {"x": x}, {"w": w}, pads=[1] * 4, group=8))
    context = Context(target.parse("avx2"), pipeline.rules())
    steps = "fold-constants,layout,fold-constants,pack-weights,legalize,fuse,schedule"
    module = pipeline.run(pipeline.parse(steps), model.module, context)
    assert "T.Shuffle" in module.script()
    (kernel,) = (record for record in context.kernels if record.rule == "conv2d")
    assert kernel.flops == 2 * x.size * 4 * 9  # those of merged groups would be twice as many


def skip_unless_runnable(cpu: str) -> None:
    if not target.parse(cpu).features <= target.parse("cpu").features:
        pytest.skip(f"this host has no {cpu}")
