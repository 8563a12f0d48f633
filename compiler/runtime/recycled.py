"""Arrays of one kind that are given again once whoever had them has let go of them."""

import math
import sys
from typing import Any

import numpy as np

from hybridc.compiler.model import Array
from hybridc.compiler.runtime.tensors import ALIGNMENT, placed

# One that the caller still holds while he asks for the next, and that.
_KEPT = 2


def _references(memories: list[Array]) -> list[int]:
    """How often each is referred to, by the list and by this function too."""
    return [sys.getrefcount(memory) for memory in memories]


# Of a memory that nobody has.  Counted, since versions of Python differ in what a loop holds.
_OWN = _references([np.empty(0)])[0]


class Recycled:
    """Gives arrays of one shape and dtype, whose memory it takes back when they are forgotten.

    Fresh memory costs a page fault each 4 KiB: 38 MB of results took 10 ms beside 17 of kernels
    (Zen 4).  No more than two arrays are kept, for as long as this lives; further ones go when the
    caller lets them go.  Who still has one is read from counts of references, which have to be
    exact: those of CPython with its global lock are.
    """

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._kind = shape, dtype
        self._bytes = dtype.itemsize * math.prod(shape) + ALIGNMENT
        self._kept: list[Array] = []

    def next(self) -> Array:
        """An uninitialised array that nobody else holds, on an aligned address."""
        # Every view holds on to its memory, and so does whoever took it by DLPack.
        for index, references in enumerate(_references(self._kept)):
            if references == _OWN:
                return placed(self._kept[index], *self._kind)
        memory = np.empty(self._bytes, np.uint8)
        if len(self._kept) < _KEPT:
            self._kept.append(memory)
        return placed(memory, *self._kind)
