"""Outputs held against those that a case wants, by the rules of ONNX's own runner."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridc.compiler.model import Array

_BFLOAT16_RTOL = 2.0**-6  # two units in the last place


@dataclass(frozen=True)
class Tolerance:
    """A number is right within `atol + rtol * |wanted|` of the one that is wanted."""

    rtol: float
    atol: float

    def holds(self, value: Array, wanted: Array) -> Array:
        """Which elements are right; NaN if it is wanted."""
        return np.isclose(value, wanted, self.rtol, self.atol, equal_nan=True)


def difference(got: Sequence[Any], expected: Sequence[Any], tolerance: Tolerance) -> str | None:
    """What differs between outputs beyond the tolerance, in one line, or None.

    Counts, shapes and types have to be equal; numbers of bfloat16 may be off by two units in the
    last place whatever the tolerance.
    """
    if len(got) != len(expected):
        return f"{len(got)} outputs, not {len(expected)}"
    for index, (value, right) in enumerate(zip(got, expected, strict=True)):
        if differs := _differs(value, right, tolerance):
            return f"output {index}{differs}"
    return None


def _differs(value: Any, right: Any, tolerance: Tolerance) -> str | None:
    """What differs between two values, to complete "output 0"."""
    if isinstance(value, list) and isinstance(right, list):
        differs = difference(value, right, tolerance)
        return f", a sequence: {differs}" if differs else None
    if not (isinstance(value, np.ndarray) and isinstance(right, np.ndarray)):
        return None if value is right is None else f" is {type(value).__name__}, not {right!r:.60}"
    if value.shape != right.shape:
        return f" has the shape {value.shape}, not {right.shape}"
    if value.dtype != right.dtype:
        return f" is of {value.dtype}, not {right.dtype}"
    if value.dtype == object:  # strings
        return None if np.array_equal(value, right) else ": other strings"
    if value.dtype.name == "bfloat16":
        tolerance = Tolerance(max(tolerance.rtol, _BFLOAT16_RTOL), tolerance.atol)
    differs = _numbers(_comparable(value), _comparable(right), tolerance)
    return f": {differs}" if differs else None


def _numbers(value: Array, right: Array, tolerance: Tolerance) -> str | None:
    try:
        np.testing.assert_allclose(value, right, rtol=tolerance.rtol, atol=tolerance.atol)
    except AssertionError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        facts = [
            line for line in lines if line.startswith(("Mismatched", "Max abs", "nan", "x and"))
        ]
        return "; ".join(facts or lines[:2])
    return None


def _comparable(array: Array) -> Array:
    """Types of ml_dtypes as float32, which holds all their numbers; numpy cannot promote them."""
    return array.astype(np.float32) if array.dtype.kind == "V" else array
