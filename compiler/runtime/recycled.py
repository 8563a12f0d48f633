"""Arrays of one kind that are given again once whoever had them has let go of them."""

import math
import sys
from typing import Any, NamedTuple

import numpy as np

from hybridc.compiler.model import Array
from hybridc.compiler.runtime.array_address import address
from hybridc.compiler.runtime.tensors import ALIGNMENT, placed

# One that the caller still holds while he asks for the next, and that.
_KEPT = 2


class _Kept(NamedTuple):
    """Bytes, an array of the kind on them, and where it begins."""

    memory: Array
    whole: Array
    begin: int


def _made(shape: tuple[int, ...], dtype: np.dtype[Any]) -> _Kept:
    memory = np.empty(dtype.itemsize * math.prod(shape) + ALIGNMENT, np.uint8)
    whole = placed(memory, shape, dtype)
    return _Kept(memory, whole, address(whole))


def _references(kept: list[_Kept]) -> list[int]:
    """How often the memory of each is referred to, by what is kept and by this function too."""
    return [sys.getrefcount(each.memory) for each in kept]


# Of a memory that nobody has.  Counted, since versions of Python differ in what a loop holds.
_OWN = _references([_made((1,), np.dtype(np.uint8))])[0]


class Recycled:
    """Gives arrays of one shape and dtype, whose memory it takes back when they are forgotten.

    Fresh memory costs a page fault each 4 KiB: 38 MB of results took 10 ms beside 17 of kernels
    (Zen 4).  No more than two arrays are kept, for as long as this lives; further ones go when the
    caller lets them go.  Who still has one is read from counts of references, which have to be
    exact: those of CPython with its global lock are.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._kind = shape, dtype
        self._kept: list[_Kept] = []

    def next(self) -> tuple[Array, int]:
        """An uninitialised array that nobody else holds, and its address, which is aligned."""
        # Every view holds on to its memory, and so does whoever took it by DLPack.
        for index, references in enumerate(_references(self._kept)):
            if references == _OWN:
                _, whole, begin = self._kept[index]
                return whole.view(), begin
        made = _made(*self._kind)
        if len(self._kept) < _KEPT:
            self._kept.append(made)
        return made.whole.view(), made.begin
