"""How far two arrays of one shape are apart, in double precision.

NaN equals NaN and an infinity equals the same infinity; where only one side is a finite number the
error is infinite.
"""

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from hybridc.compiler.model import Array
from hybridc.compiler.runtime import carriers

Floats = NDArray[np.float64]


# Bytes of an integer that may be a number of a quantised model.
_QUANTISED = 2


def are_classes(array: Array) -> bool:
    """Whether each element names something by itself: where integers are large, or stand alone.

    Small ones in rows are numbers of a quantised model, and truth values a class of two.
    """
    kind, alone = array.dtype.kind, array.ndim < 2 or array.shape[-1] == 1
    return kind == "b" or (kind in "iu" and (alone or array.dtype.itemsize > _QUANTISED))


class Difference:
    """Two arrays of one shape and what lies between them; the first axis are samples.

    `exact` asks for equal elements; `classes` says that each names a class by itself.
    """

    def __init__(self, wanted: Array, got: Array) -> None:
        wanted, got = carriers.carried(wanted), carriers.carried(got)
        self.exact = self._integers = wanted.dtype.kind in "biu"
        self.classes = are_classes(wanted)
        self.same = np.asarray(wanted == got)
        self.wanted: Floats = wanted.astype(np.float64)
        self.got: Floats = got.astype(np.float64)
        self.same |= np.isnan(self.wanted) & np.isnan(self.got)

    @cached_property
    def error(self) -> Floats:
        """The absolute difference; infinite where only one side is finite or a number."""
        with np.errstate(invalid="ignore", over="ignore"):
            difference = np.abs(self.got - self.wanted)
        if self._integers:  # two large ones may be the same number in double precision
            difference = np.maximum(difference, 1.0)
        return np.where(self.same, 0.0, np.where(np.isnan(difference), np.inf, difference))

    def within(self, rtol: float, atol: float | Floats) -> NDArray[np.bool_]:
        """Where the two agree."""
        if self.exact:
            return self.same
        with np.errstate(invalid="ignore"):
            # An infinite `wanted` would allow anything; only `same` admits it.
            close = np.isfinite(self.wanted) & (self.error <= atol + rtol * np.abs(self.wanted))
        return self.same | close

    @property
    def largest(self) -> float:
        """The largest finite element that is wanted, by its absolute value."""
        return float(np.abs(self.wanted[np.isfinite(self.wanted)]).max(initial=0.0))

    @property
    def max_abs(self) -> float:
        """The largest error."""
        return float(self.error.max(initial=0.0))

    def max_rel(self, atol: float) -> float:
        """The largest error relative to a wanted value that is larger than `atol`.

        Infinite where a NaN or an infinity stands on one side only, however large the other is.
        """
        if self.broken.any():
            return np.inf
        size = np.abs(self.wanted)
        large = np.isfinite(size) & (size > atol)
        return float((self.error[large] / size[large]).max(initial=0.0))

    @cached_property
    def broken(self) -> NDArray[np.bool_]:
        """Where a NaN or an infinity stands on one side only."""
        return np.isinf(self.error)

    @cached_property
    def scaled(self) -> tuple[Floats, Floats]:
        """Both sides, scaled so that no square overflows; 0 where they are not finite numbers."""
        finite = np.isfinite(self.wanted) & np.isfinite(self.got)
        wanted, got = np.where(finite, self.wanted, 0.0), np.where(finite, self.got, 0.0)
        scale = max(np.abs(wanted).max(initial=0.0), np.abs(got).max(initial=0.0)) or 1.0
        return wanted / scale, got / scale
