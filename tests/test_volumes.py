"""Convolutions of volumes over drawn shapes, against ONNX Runtime."""

from typing import Any

from drawn import drawn
from drawn_models import POINTS, agree, model, noise
from hypothesis import assume
from hypothesis import strategies as st
from onnx_models import node


def triple(low: int, high: int) -> Any:
    return st.tuples(*[st.integers(low, high)] * 3)


@drawn(
    8,
    40,
    batch=st.integers(1, 2),
    groups=st.sampled_from([1, 1, 2, 3]),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 9)),
    size=triple(1, 7),
    window=triple(1, 3),
    strides=triple(1, 3),
    dilations=triple(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 6),
    more=triple(0, 2),
    transposed=st.booleans(),
)
def test_convolutions_of_volumes(
    batch: int,
    groups: int,
    channels: tuple[int, int],
    size: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    more: tuple[int, ...],
    transposed: bool,
) -> None:
    attributes: dict[str, Any] = dict(strides=strides, dilations=dilations, pads=pads, group=groups)
    reach = [d * (w - 1) + 1 for d, w in zip(dilations, window, strict=True)]
    inputs, outputs = channels
    weight = (outputs * groups, inputs, *window)
    if transposed:
        weight = (inputs * groups, outputs, *window)
        extra = [min(value, stride - 1) for value, stride in zip(more, strides, strict=True)]
        attributes["output_padding"] = extra
        full = [(size[i] - 1) * strides[i] + reach[i] + extra[i] for i in range(3)]
        assume(all(full[i] > pads[i] + pads[3 + i] for i in range(3)))
    else:
        assume(all(size[i] + pads[i] + pads[3 + i] >= reach[i] for i in range(3)))
    feed = {"x": noise((batch, inputs * groups, *size))}
    operator = "ConvTranspose" if transposed else "Conv"
    nodes = [node(operator, "x w", "c", **attributes), node("Relu", "c", "y")]
    agree(model(nodes, feed, {"w": noise(weight)}), feed, "cpu", None)


@drawn(
    4,
    20,
    batch=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 5]),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=triple(1, 6),
    along=st.tuples(st.integers(2, 4), st.integers(1, 3), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 2),
)
def test_windows_of_one_pixel_move_along_the_depth(
    batch: int,
    groups: int,
    channels: tuple[int, int],
    size: tuple[int, ...],
    along: tuple[int, int, int],
    pads: tuple[int, int],
) -> None:
    (window, stride, dilation), (inputs, outputs) = along, channels
    assume(size[0] + sum(pads) >= dilation * (window - 1) + 1)
    attributes = dict(
        strides=(stride, 1, 1),
        dilations=(dilation, 1, 1),
        pads=(pads[0], 0, 0, pads[1], 0, 0),
        group=groups,
    )
    feed = {"x": noise((batch, inputs * groups, *size))}
    nodes = [node("Conv", "x w", "c", **attributes), node("Relu", "c", "y")]
    weights = {"w": noise((outputs * groups, inputs, window, 1, 1))}
    agree(model(nodes, feed, weights), feed, "cpu", None)


@drawn(
    4,
    20,
    channels=st.integers(2, 20),
    size=triple(3, 7),
    window=triple(1, 3),
    strides=triple(1, 2),
    dilation=st.integers(1, 2),
    pads=st.tuples(*[st.integers(0, 2)] * 6),
)
def test_channels_of_volumes_convolved_alone(
    channels: int,
    size: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: int,
    pads: tuple[int, ...],
) -> None:
    dilations = (dilation, 1, 1)
    reach = [d * (w - 1) + 1 for d, w in zip(dilations, window, strict=True)]
    assume(all(size[i] + pads[i] + pads[3 + i] >= reach[i] for i in range(3)))
    attributes = dict(strides=strides, dilations=dilations, pads=pads, group=channels)
    feed = {"x": noise((2, channels, *size))}
    nodes = [node("Conv", "x w b", "c", **attributes), node("Relu", "c", "y")]
    agree(
        model(nodes, feed, {"w": noise((channels, 1, *window)), "b": noise((channels,))}),
        feed,
        "cpu",
        None,
    )


@drawn(
    5,
    20,
    batch=st.integers(1, 2),
    channels=st.sampled_from([4, 5, 15, 17, 20, 24, 33, 44]),
    size=triple(1, 9),
    window=triple(1, 5),
    strides=triple(1, 2),
    pads=st.tuples(*[st.integers(0, 3)] * 6),
    points=POINTS,
)
def test_vectors_of_channels_that_overlap(
    batch: int,
    channels: int,
    size: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    points: int | None,
) -> None:
    assume(all(size[i] + pads[i] + pads[3 + i] >= window[i] for i in range(3)))
    feed = {"x": noise((batch, channels, *size))}
    nodes = [
        node("Conv", "x w b", "c", strides=strides, pads=pads, group=channels),
        node("Relu", "c", "y"),
    ]
    weights = {"w": noise((channels, 1, *window)), "b": noise((channels,))}
    agree(model(nodes, feed, weights), feed, "cpu", points)
