"""Rows that a model sorts or selects: another order is right where the reference has it, too.

Detectors return the best of many candidates, each a row of one or several outputs: a box, its
score, its class.  Where scores are equal up to rounding another order is as right, and another
candidate for the last place.  An allowance for each element cannot tell that from a wrong row: of
a coordinate it would be the width of the image.

So rows are compared whole, over all outputs that they are a part of, with what the reference makes
of inputs and weights that are off by some roundings.  Each has to be a row of one of these answers;
may have moved no further than some row of the reference does there; and stands no more often than
in one of them.  A wrong index, a row twice, or a box beside another's class is none of that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridc.compiler.assurance.verify import tolerance
from hybridc.compiler.model import Array
from hybridc.compiler.runtime import carriers

# How much further than any row of some answers of the reference one of another answer may move.
_FURTHER = 2.0
# Elements compared for one sequence of rows; a search through more would take longer than the rest.
_MOST = 2**29
# And at once: calls of numpy take longer than that for fewer, and more leave the cache.
_AT_ONCE = 2**16
# An axis is one of rows if so many of those that change in the reference's answers only move.
_MOVED = 0.5

Answer = Sequence[Any]  # arrays, and values that are none
Flags = NDArray[np.bool_]
Places = NDArray[np.intp]


def excused(index: int, wanted: Answer, got: Answer, answers: Sequence[Answer]) -> int | None:
    """How many rows of output `index` are others than wanted, all of which are as right.

    -1 where one is not; None where the `answers` of the reference move no rows: that says nothing.
    """
    shape = wanted[index].shape
    for axis in range(len(shape)):
        places = [
            place
            for place, array in enumerate(wanted)
            if isinstance(array, np.ndarray) and array.shape[: axis + 1] == shape[: axis + 1]
        ]
        alike = [
            [each[place] for place in places]
            for each in answers
            if all(each[place].shape == wanted[place].shape for place in places)
        ]
        if shape[axis] > 1 and alike:
            first, second = ([side[place] for place in places] for side in (wanted, got))
            found = [*_sequences(axis, first, second, alike)]
            if (count := _judged(found)) is not None:
                return count
    return None


def _judged(found: Sequence["_Sequence"]) -> int | None:
    if not found or any(each.effort > _MOST for each in found):
        return None
    moving = [each.reorders for each in found]
    if not any(moving):
        return None
    if not all(moving) or not all(each.is_right() for each in found):
        return -1
    return sum(each.changed.size for each in found)


def _sequences(
    axis: int, wanted: Answer, got: Answer, answers: Sequence[Answer]
) -> Iterator["_Sequence"]:
    """Rows along an axis, for each index of the axes before it where not all are as wanted."""
    limits = [tolerance(array) for array in wanted]
    sides = [[_rows(array, axis) for array in side] for side in (wanted, got, *answers)]
    changed = [_changed(sides[0], side, limits) for side in sides[1:]]
    for place in np.flatnonzero(changed[0].any(1)):
        first, second, *others = ([array[place] for array in side] for side in sides)
        here, *there = (np.flatnonzero(flags[place]) for flags in changed)
        yield _Sequence(first, second, others, limits, here, there)


def _changed(wanted: Answer, other: Answer, limits: Sequence[tuple[float, float]]) -> Flags:
    """Which rows of each sequence are not as wanted."""
    changed: Flags = np.zeros(wanted[0].shape[:2], bool)
    for mine, theirs, (rtol, atol) in zip(wanted, other, limits, strict=True):
        changed |= ~_near(mine, theirs, rtol, atol).all(-1)
    return changed


def _rows(array: Array, axis: int) -> Array:
    carried = carriers.carried(array)
    before, (size, *_) = array.shape[:axis], array.shape[axis:]
    exact = carried.dtype.kind in "biu"
    held = carried if exact else carried.astype(np.float64)
    rows: Array = held.reshape(int(np.prod(before, dtype=int)), size, -1)
    return rows


@dataclass(frozen=True)
class _Sequence:
    """Rows in their order, of several outputs at once: wanted, got, and of other answers.

    `limits` are rtol and atol of each output; `changed` are the rows that are not as wanted, and
    `theirs` those of each answer.
    """

    wanted: Answer
    got: Answer
    answers: Sequence[Answer]
    limits: Sequence[tuple[float, float]]
    changed: Places
    theirs: Sequence[Places]

    @property
    def effort(self) -> int:
        """About as many elements have to be compared."""
        width = sum(array.shape[1] for array in self.wanted)
        rows = self.changed.size + sum(rows.size for rows in self.theirs)
        return int(rows * len(self.wanted[0]) * width * (1 + len(self.answers)))

    @cached_property
    def moves(self) -> list[tuple[int, int]]:
        """Where each row that an answer moves was, and where it is."""
        return [
            (int(here), _nearest(places, int(here)))
            for answer, rows in zip(self.answers, self.theirs, strict=True)
            for here, alike in self._alike(answer, rows, self.wanted)
            if (places := np.flatnonzero(alike)).size
        ]

    @property
    def reorders(self) -> bool:
        """Whether most of what changes in the answers only moves."""
        changed = sum(rows.size for rows in self.theirs)
        return bool(self.moves) and len(self.moves) >= _MOVED * changed

    def is_right(self) -> bool:
        """Whether every row that is not as wanted is as right."""
        every = (self.wanted, *self.answers, self.got)
        found = [self._alike(self.got, self.changed, answer) for answer in every]
        for at_row in zip(*found, strict=True):
            (row, _), *_ = at_row
            *others, own = (alike for _, alike in at_row)
            if not self._fits(int(row), others, own):
                return False
        return True

    def _fits(self, row: int, found: Sequence[Flags], own: Flags) -> bool:
        """Whether a row is right, like so many rows of each answer and of its own."""
        most = max(map(np.count_nonzero, found))
        if most > 1 and any(each[row] for each in found):
            return True  # a class of an element, say, which another answer gives it too
        if np.count_nonzero(own) > most:
            return False
        places = np.flatnonzero(np.logical_or.reduce(found))
        there = _nearest(places, row)
        low, high = sorted((row, there))
        far = [
            abs(one - other)
            for one, other in self.moves
            if min(one, other) <= high and max(one, other) >= low
        ]
        return high - low <= _FURTHER * max(far, default=0)

    def _alike(self, one: Answer, rows: Places, other: Answer) -> Iterator[tuple[np.intp, Flags]]:
        """Rows of one answer, with which rows of another are like them."""
        size, step = len(other[0]), max(1, _AT_ONCE // max(1, other[0].size))
        for first in range(0, len(rows), step):
            some = rows[first : first + step]
            found: Flags = np.ones((len(some), size), bool)
            for mine, theirs, limits in zip(one, other, self.limits, strict=True):
                here, there = np.nonzero(found)
                found[here, there] = _near(theirs[there], mine[some[here]], *limits).all(1)
            yield from zip(some, found, strict=True)


def _near(one: Array, other: Array, rtol: float, atol: float) -> Flags:
    if one.dtype.kind in "biu":
        return np.asarray(one == other)
    with np.errstate(invalid="ignore"):
        close = np.abs(one - other) <= atol + rtol * np.abs(one)
    found: Flags = (close & np.isfinite(one)) | (one == other) | (np.isnan(one) & np.isnan(other))
    return found


def _nearest(places: Any, to: int) -> int:
    return int(places[np.argmin(np.abs(places - to))])
