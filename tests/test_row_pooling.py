"""Pooling by rows over drawn windows, against torch."""

from typing import Any

import numpy as np
import pytest
import torch
from drawn import drawn
from hypothesis import strategies as st
from operators import compiled
from tvm import relax

from hybridc.compiler.model import Array

_LAST = (0, 2, 3, 1)


@st.composite
def windows(draw: Any) -> dict[str, Any]:
    """An image, a window that lies in it, padding of less than half the window as torch has it."""
    size = [draw(st.sampled_from([1, 2, 5, 7, 8, 13, 16, 31, 40])) for _ in range(2)]
    window = [draw(st.integers(1, 5)) for _ in range(2)]
    dilation = [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(2)]
    padding = [draw(st.integers(0, w // 2)) for w in window]
    strides = [draw(st.sampled_from([1, 1, 2, 2, 3, 5])) for _ in range(2)]
    for i in range(2):
        if size[i] + 2 * padding[i] < dilation[i] * (window[i] - 1) + 1:
            size[i] += dilation[i] * window[i]
    return {
        "size": size,
        "window": window,
        "dilation": dilation,
        "padding": padding,
        "strides": strides,
        "ceil": draw(st.booleans()),
        "channels": draw(st.sampled_from([1, 3, 8, 16])),
    }


def image(drawn: dict[str, Any], seed: int = 0) -> Array:
    """Channels first; a few elements are NaN or infinite."""
    numbers = np.random.default_rng(seed)
    x = numbers.standard_normal((2, drawn["channels"], *drawn["size"])).astype("float32")
    x.ravel()[numbers.integers(0, x.size, 3)] = [np.nan, np.inf, -np.inf]
    return x


def pooled(
    kind: str, x: Array, drawn: dict[str, Any], layout: str, **options: Any
) -> tuple[Array, set[str]]:
    """By the compiler, channels first again."""
    top, left = drawn["padding"]
    given_x = x if layout == "NCHW" else np.ascontiguousarray(x.transpose(_LAST))
    function = getattr(relax.op.nn, f"{kind}_pool2d")
    (y,), rules = compiled(
        lambda v: function(
            v,
            drawn["window"],
            drawn["strides"],
            (top, left, top, left),
            drawn["dilation"],
            ceil_mode=drawn["ceil"],
            layout=layout,
            **options,
        ),
        given_x,
        cpu=options.pop("cpu", "cpu"),
    )
    return (y if layout == "NCHW" else y.transpose(0, 3, 1, 2)), rules


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@drawn(6, 30, drawn=windows())
def test_maxima_are_those_of_torch(layout: str, drawn: dict[str, Any]) -> None:
    x = image(drawn)
    wanted = torch.nn.functional.max_pool2d(
        torch.from_numpy(x),
        drawn["window"],
        drawn["strides"],
        drawn["padding"],
        drawn["dilation"],
        drawn["ceil"],
    )
    got, _ = pooled("max", x, drawn, layout)
    np.testing.assert_array_equal(got, wanted.numpy())


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("counted", [False, True])
@drawn(6, 30, drawn=windows())
def test_averages_are_those_of_torch(layout: str, counted: bool, drawn: dict[str, Any]) -> None:
    drawn = {**drawn, "dilation": [1, 1], "ceil": drawn["ceil"] and not counted}
    x = image(drawn)
    wanted = torch.nn.functional.avg_pool2d(
        torch.from_numpy(x),
        drawn["window"],
        drawn["strides"],
        drawn["padding"],
        drawn["ceil"],
        counted,
    )
    got, _ = pooled("avg", x, drawn, layout, count_include_pad=counted)
    np.testing.assert_allclose(got, wanted.numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize(("window", "stride", "pad"), [(3, 2, 1), (3, 1, 1), (2, 2, 0), (5, 1, 2)])
def test_images_that_lie_channels_first_are_taken(
    kind: str, window: int, stride: int, pad: int
) -> None:
    drawn: dict[str, Any] = {
        "size": [23, 37],
        "window": [window] * 2,
        "strides": [stride] * 2,
        "padding": [pad] * 2,
    }
    drawn |= {"dilation": [1, 1], "ceil": False, "channels": 5}
    x = np.random.default_rng(0).standard_normal((2, 5, 23, 37)).astype("float32")
    _, rules = pooled(kind, x, drawn, "NCHW")
    assert rules == {"row-pooling"}


def test_large_windows_are_taken_apart_in_any_layout() -> None:
    drawn: dict[str, Any] = {
        "size": [20, 20],
        "window": [5, 5],
        "strides": [1, 1],
        "padding": [2, 2],
    }
    drawn |= {"dilation": [1, 1], "ceil": False, "channels": 48}
    x = image(drawn)
    got, rules = pooled("max", x, drawn, "NHWC")
    wanted = torch.nn.functional.max_pool2d(torch.from_numpy(x), 5, 1, 2)
    np.testing.assert_array_equal(got, wanted.numpy())
    assert rules == {"row-pooling"}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32"])
def test_maxima_of_integers(dtype: str) -> None:
    x = np.random.default_rng(0).integers(0, 100, (1, 3, 17, 41)).astype(dtype)
    drawn: dict[str, Any] = {
        "size": [17, 41],
        "window": [3, 3],
        "strides": [2, 2],
        "padding": [1, 1],
    }
    drawn |= {"dilation": [1, 1], "ceil": False}
    got, rules = pooled("max", x, drawn, "NCHW")
    wanted = torch.nn.functional.max_pool2d(torch.from_numpy(x.astype("float32")), 3, 2, 1)
    np.testing.assert_array_equal(got, wanted.numpy().astype(dtype))
    assert rules == {"row-pooling"}


def test_what_comes_before_and_behind_is_done_at_once() -> None:
    x = np.random.default_rng(0).standard_normal((1, 4, 19, 26)).astype("float32")
    bias = np.random.default_rng(1).standard_normal((1, 4, 1, 1)).astype("float32")

    def build(v: Any, b: Any) -> Any:
        made = relax.op.nn.max_pool2d(relax.op.nn.relu(v), (3, 3), (2, 2), (1, 1), layout="NCHW")
        return relax.op.nn.relu(relax.op.subtract(made, b))

    (got,), rules = compiled(build, x, bias)
    made = torch.nn.functional.max_pool2d(torch.from_numpy(x).relu(), 3, 2, 1) - torch.from_numpy(
        bias
    )
    np.testing.assert_allclose(got, made.relu().numpy(), atol=1e-6)
    assert "row-pooling" in rules
