"""Rows of few elements, a lane for each, against numpy."""

from math import prod
from typing import Any

import numpy as np
import pytest
from drawn import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from operators import compiled
from tvm import relax

from hybridc.compiler import target
from hybridc.compiler.model import Array

op: Any = relax.op
ROWS = st.sampled_from([(8,), (9,), (37,), (64,), (3, 11), (2, 5, 7)])
LENGTH = st.integers(2, 20)


def rows_of(rows: tuple[int, ...], length: int, nan: bool = False) -> Array:
    numbers = np.random.default_rng(length)
    x = numbers.standard_normal((*rows, length)).astype("float32")
    if nan:
        x.ravel()[numbers.integers(0, x.size, 2)] = [np.nan, np.inf]
    return x


def softmax(x: Array) -> Array:
    e = np.exp(x.astype("float64") - x.max(-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))


@drawn(8, 40, rows=ROWS, length=LENGTH)
def test_softmax(rows: tuple[int, ...], length: int) -> None:
    x = rows_of(rows, length)
    (got,), rules = compiled(lambda v: op.nn.softmax(v, -1), x)
    np.testing.assert_allclose(got, softmax(x), rtol=2e-5, atol=1e-7)
    lanes = target.parse("cpu").lanes()
    short = length < 2 * lanes and prod(rows) >= lanes
    assert rules == {"short-rows" if short else "softmax"}


@settings(max_examples=8, deadline=None, derandomize=True)
@given(rows=ROWS, length=LENGTH)
def test_softmax_of_nan_is_nan_in_the_row(rows: tuple[int, ...], length: int) -> None:
    x = rows_of(rows, length)
    x.reshape(-1, length)[[1, 4], [0, length - 1]] = np.nan
    (got,), _ = compiled(lambda v: op.nn.softmax(v, -1), x)
    np.testing.assert_array_equal(np.isnan(got).any(-1), np.isnan(x).any(-1))
    np.testing.assert_array_equal(np.isnan(got).all(-1), np.isnan(x).any(-1))


@pytest.mark.parametrize("name", ["sum", "max", "min", "mean", "prod"])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(rows=ROWS, length=LENGTH, keep=st.booleans())
def test_reductions(name: str, rows: tuple[int, ...], length: int, keep: bool) -> None:
    x = rows_of(rows, length, nan=name in ("max", "min"))
    (got,), _ = compiled(lambda v: getattr(op, name)(v, -1, keepdims=keep), x)
    wanted = getattr(np, name)(x, -1, keepdims=keep)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["argmax", "argmin"])
@settings(max_examples=8, deadline=None, derandomize=True)
@given(rows=ROWS, length=LENGTH)
def test_places(name: str, rows: tuple[int, ...], length: int) -> None:
    x = np.round(rows_of(rows, length))
    x.reshape(-1, length)[2, length - 1] = np.nan
    (got,), _ = compiled(lambda v: getattr(op, name)(v, -1), x)
    np.testing.assert_array_equal(got, getattr(np, name)(x, -1))


@drawn(8, 40, rows=ROWS, length=LENGTH)
def test_layer_norm(rows: tuple[int, ...], length: int) -> None:
    x = rows_of(rows, length)
    scale, shift = rows_of((1,), length)[0], rows_of((2,), length)[1]
    (got,), _ = compiled(
        lambda v, s, b: op.nn.layer_norm(v, s, b, [-1], epsilon=1e-5), x, scale, shift
    )
    wide = x.astype("float64")
    normal = (wide - wide.mean(-1, keepdims=True)) / np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(got, normal * scale + shift, rtol=1e-4, atol=1e-4)


def test_other_operands_of_rows_and_columns() -> None:
    x, bias = rows_of((5, 16), 12), rows_of((1,), 12)[0]
    weight = rows_of((5,), 16)

    def build(v: Any, b: Any, w: Any) -> Any:
        total = op.sum(op.multiply(op.exp(v), op.add(b, op.exp(b))), -1)
        return op.multiply(total, w)

    (got,), _ = compiled(build, x, bias, weight)
    np.testing.assert_allclose(got, (np.exp(x) * (bias + np.exp(bias))).sum(-1) * weight, rtol=1e-4)
