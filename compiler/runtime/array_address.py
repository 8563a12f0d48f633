"""Where an array's elements begin, sooner than numpy tells it.

`array.ctypes.data` and `__array_interface__` describe the whole array first: 1.1 and 1.3 us, as
long as a small model takes.  This takes 0.2 (Emerald Rapids).
"""

import ctypes
import sys

import numpy as np

from hybridc.compiler.model import Array

# numpy's C API fixes the head of `PyArrayObject`: that of any Python object, and then the address.
_BEFORE = object.__basicsize__
_read = ctypes.c_size_t.from_address


def address(array: Array) -> int:
    """The address of the first element."""
    return _read(id(array) + _BEFORE).value if _AS_FIXED else int(array.ctypes.data)


def _holds() -> bool:
    """Whether this Python's objects lie at their `id`, and arrays are as the C API has them."""
    if sys.implementation.name != "cpython":
        return False
    whole = np.zeros((3, 5), np.int16)
    arrays = (whole, whole[1:, ::2], whole[::-1])
    return all(_read(id(each) + _BEFORE).value == each.ctypes.data for each in arrays)


_AS_FIXED = _holds()
