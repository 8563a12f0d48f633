"""Sums of convolutions, scales and shifts of one tensor, against ONNX Runtime."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from drawn import drawn
from drawn_models import agree, model, noise
from hypothesis import assume
from hypothesis import strategies as st
from onnx_models import node

Axes = Sequence[int]


@dataclass
class Branches:
    """Branches of x, whose results are those of a `window` with padding `before` both sides."""

    channels: tuple[int, int]
    groups: int
    size: Axes
    window: Axes
    before: Axes
    stride: int
    dilation: int
    nodes: list[Any] = field(default_factory=list)
    constants: dict[str, Any] = field(default_factory=dict)

    def reach(self, window: Axes) -> list[int]:
        return [self.dilation * (taps - 1) + 1 for taps in window]

    @property
    def made(self) -> list[int]:
        sides = zip(self.size, self.before, self.reach(self.window), strict=True)
        return [(size + 2 * pad - reach) // self.stride + 1 for size, pad, reach in sides]

    @property
    def keeps_shape(self) -> bool:
        inputs, outputs = self.channels
        return self.stride == 1 and inputs == outputs and self.made == list(self.size)

    def window_of(self, taps: Axes, before: Axes) -> str:
        """A convolution by a part of the window, as large as the results are."""
        name, (inputs, outputs), axes = f"c{len(self.nodes)}", self.channels, len(taps)
        sides = zip(self.made, self.reach(taps), self.size, before, strict=True)
        behind = [(made - 1) * self.stride + reach - size - pad for made, reach, size, pad in sides]
        assume(min(*before, *behind) >= 0)
        self.constants[f"w{name}"] = noise((outputs, inputs // self.groups, *taps)) + len(name)
        many = {"strides": [self.stride] * axes, "dilations": [self.dilation] * axes}
        pads = [*before, *behind]
        self.nodes.append(node("Conv", f"x w{name}", name, pads=pads, group=self.groups, **many))
        return name

    def part(self, draw: random.Random) -> str:
        skipped = [draw.randrange(taps) for taps in self.window]
        taps = [draw.randint(1, w - s) for w, s in zip(self.window, skipped, strict=True)]
        pads = [p - self.dilation * s for p, s in zip(self.before, skipped, strict=True)]
        return self.window_of(taps, pads)

    def with_channels(self, operator: str, name: str) -> str:
        """A scale or a shift, with a number for each channel."""
        channels = self.channels[0 if name == "x" else 1]
        made = f"{operator}{len(self.nodes)}"
        self.constants[f"n{made}"] = noise((channels, *[1] * len(self.size)))
        self.nodes.append(node(operator, f"{name} n{made}", made))
        return made

    def of_kind(self, kind: str, draw: random.Random) -> str:
        if kind in ("scale", "itself") and self.keeps_shape:
            return "x" if kind == "itself" else self.with_channels("Mul", "x")
        if kind == "shifted":
            return self.with_channels("Add", self.window_of(self.window, self.before))
        return self.part(draw)


@drawn(
    8,
    60,
    axes=st.integers(1, 3),
    groups=st.sampled_from([1, 1, 2]),
    channels=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    sizes=st.tuples(*[st.tuples(st.integers(3, 7), st.integers(1, 4), st.integers(0, 2))] * 3),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    kinds=st.lists(st.sampled_from(["part", "scale", "itself", "shifted"]), min_size=1, max_size=3),
    seed=st.integers(0, 99),
)
def test_whatever_is_merged_adds_up(
    axes: int,
    groups: int,
    channels: tuple[int, int],
    sizes: tuple[tuple[int, int, int], ...],
    stride: int,
    dilation: int,
    kinds: list[str],
    seed: int,
) -> None:
    size, window, before = zip(*sizes[:axes], strict=True)
    inputs, outputs = (count * groups for count in channels)
    some = Branches((inputs, outputs), groups, size, window, before, stride, dilation)
    assume(min(some.made) >= 1)
    draw, total = random.Random(seed), some.window_of(window, before)
    for index, kind in enumerate(kinds):
        branch = some.of_kind(kind, draw)
        some.nodes.append(node("Add", f"{total} {branch}", f"sum{index}"))
        total = f"sum{index}"
    feed = {"x": noise((2, inputs, *size))}
    agree(model([*some.nodes, node("Relu", total, "y")], feed, some.constants), feed, "cpu", None)


@pytest.mark.parametrize("shape", [(), (6,), (3, 6)])
def test_sums_of_few_axes_are_left_alone(shape: tuple[int, ...]) -> None:
    feed = {"x": np.asarray(noise(shape))}
    constants = {"s": np.array(0.5, "float32"), "t": np.array(3, "float32")}
    nodes = [node("Mul", "x s", "a"), node("Mul", "x t", "b"), node("Add", "a b", "y")]
    agree(model(nodes, feed, constants), feed, "cpu", None)
