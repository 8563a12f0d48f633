"""Sorted rows and the best of rows over drawn shapes, against numpy."""

from typing import Any

import numpy as np
import pytest
from drawn import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import compiled
from tvm import relax

from hybridc.compiler.model import Array

op: Any = relax.op
SHAPES = st.lists(st.sampled_from([1, 2, 3, 5, 17, 40]), max_size=2)
LENGTHS = st.sampled_from([1, 2, 7, 10, 31, 64, 65, 96, 200, 333, 1000])
DTYPES = ["float32", "float32", "int32", "int8", "uint8"]


def numbers(shape: list[int], dtype: str, seed: int = 0) -> Array:
    """Numbers of which several are equal; of floats some are NaN, infinite or a negative zero."""
    draw = np.random.default_rng(seed)
    x = (20 * draw.standard_normal(shape)).astype("int8" if dtype == "uint8" else dtype)
    x = x.astype(dtype)
    if dtype == "float32":
        x = np.where(draw.random(shape) < 0.3, np.round(x / 9), x).astype("float32")
        odd = draw.integers(0, x.size, 6)
        x.ravel()[odd] = [np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0]
    return x


def order(x: Array, largest: bool) -> Array:
    """Places in order along the last axis: NaN counts as largest, equals by their places."""
    if not largest:
        return np.argsort(x, -1, kind="stable")
    turned = np.flip(x, -1)
    places = x.shape[-1] - 1 - np.argsort(turned, -1, kind="stable")
    return np.flip(places, -1)


@drawn(
    12,
    60,
    outer=SHAPES,
    length=LENGTHS,
    k=st.sampled_from([1, 2, 8, 32, 33, 100, 0]),
    dtype=st.sampled_from(DTYPES),
    largest=st.booleans(),
)
def test_the_best_are_those_of_numpy(
    outer: list[int], length: int, k: int, dtype: str, largest: bool
) -> None:
    x = numbers([*outer, length], dtype)
    k = min(k, length)
    (values, places), _ = compiled(lambda v: op.topk(v, k, -1, "both", largest, "int64"), x)
    wanted = order(x, largest)[..., : k or length]
    np.testing.assert_array_equal(places, wanted)
    np.testing.assert_array_equal(values, np.take_along_axis(x, wanted, -1))


@settings(max_examples=10, deadline=None, derandomize=True)
@given(outer=SHAPES, length=LENGTHS, axis=st.integers(0, 2), descending=st.booleans())
def test_sorted_along_any_axis(outer: list[int], length: int, axis: int, descending: bool) -> None:
    x = numbers([*outer, length], "float32")
    axis %= x.ndim
    last = np.moveaxis(x, axis, -1)
    places = order(last, descending)
    (got,), _ = compiled(lambda v: op.sort(v, axis, descending), x)
    wanted = np.take_along_axis(last, places, -1)
    np.testing.assert_array_equal(np.moveaxis(got, axis, -1), wanted)
    (got,), _ = compiled(lambda v: op.argsort(v, axis, descending, "int32"), x)
    np.testing.assert_array_equal(np.moveaxis(got, axis, -1), places)


@pytest.mark.parametrize("k", [5, 40, 100])
@pytest.mark.parametrize("kind", ["rising", "falling", "equal"])
def test_rows_in_order_already(k: int, kind: str) -> None:
    row = np.arange(5000, dtype="float32")
    x = np.stack([{"rising": row, "falling": -row, "equal": 0 * row}[kind]] * 3)
    (places,), _ = compiled(lambda v: op.topk(v, k, -1, "indices", True, "int32"), x)
    np.testing.assert_array_equal(places, order(x, True)[:, :k])


def test_the_values_alone_along_the_first_axis() -> None:
    x = numbers([300, 7], "float32")
    (values,), _ = compiled(lambda v: op.topk(v, 9, 0, "values", False), x)
    np.testing.assert_array_equal(values, np.sort(x, 0)[:9])


def test_numbers_of_64_bits_are_left_to_tvm() -> None:
    x = np.random.default_rng(0).integers(-(2**40), 2**40, (3, 50))
    (values,), _ = compiled(lambda v: op.topk(v, 4, -1, "values"), x)
    np.testing.assert_array_equal(values, -np.sort(-x, -1)[:, :4])
