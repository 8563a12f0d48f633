"""Whether a scheduled kernel computes what the unscheduled function computes."""

from collections.abc import Sequence
from math import sqrt

import numpy as np

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels import recurrence
from hybridc.compiler.model import Array

_ROUNDED = ("float16", "bfloat16")
_BYTES = ("int8", "uint8")
# Terms whose sum keeps the tolerance of a short one; rounding errors walk at random beyond.
_SHORT = 64


def feed(func: PrimFunc, seed: int = 0) -> list[Array]:
    """Random numbers for each parameter, those that it writes too, so that a hole shows.

    Weights of a recurrence are as small as those of a network: with others it would be chaotic, and
    make answers of roundings.

    Integers are 0 or 1, which index any axis; those of 8 bits, which are quantised tensors and no
    indices, have every value.
    """
    draw = np.random.default_rng(seed)
    arrays: list[Array] = []
    recurrent = {recurrence.WEIGHTS} if recurrence.blocks_of(func) else set[int]()
    for place, param in enumerate(func.params):
        shape = tuple(int(extent) for extent in param.shape)
        dtype = str(param.dtype)
        if "float" in dtype:
            scale = np.float32(shape[1] ** -0.5 if place in recurrent else 1.0)
            arrays.append(np.asarray(scale * draw.standard_normal(shape, np.float32), dtype))
        elif dtype in _BYTES:
            limits = np.iinfo(dtype)
            arrays.append(draw.integers(limits.min, limits.max, shape, dtype, True))
        else:
            arrays.append(np.asarray(draw.integers(0, 2, shape), dtype))
    return arrays


def difference(got: Array, right: Array, terms: int = 1, *, quantised: bool = True) -> str | None:
    """What is wrong with one array, in a clause; None if it is as near as roundings allow.

    `terms` are those of the longest sum.  Integers are equal, but for 8 bits of a kernel that
    rounds floats to them (`quantised`): a fused multiply-add may take a tie to the other side.
    """
    if np.array_equal(got, right):  # most parameters are only read, and weights are large
        return None
    if got.dtype.kind in "biu":
        wide = right.astype(np.int64), got.astype(np.int64)
        step = 1 if quantised and str(got.dtype) in _BYTES else 0
        wrong = np.abs(wide[1] - wide[0]) > step
    else:
        wrong = _apart(got, right, terms)
    if not wrong.any():
        return None
    first = int(np.flatnonzero(wrong)[0])
    place = ",".join(str(int(i)) for i in np.unravel_index(first, got.shape))
    return (
        f"{int(wrong.sum())} of {wrong.size} elements differ, the first at [{place}]: "
        f"wanted {right.flat[first]}, got {got.flat[first]}"
    )


def _apart(got: Array, right: Array, terms: int) -> Array:
    """Sums in another order differ by a share of their terms, not of what cancels out."""
    dtype = str(got.dtype)
    relative = 1e-2 if dtype in _ROUNDED else 1e-4
    # Of bfloat16, what a kernel keeps to itself may be rounded or not.
    share = 0.2 if dtype == "bfloat16" else 1e-2 * max(1.0, sqrt(terms / _SHORT))
    one, other = got.astype(np.float64), right.astype(np.float64)
    finite = np.abs(other[np.isfinite(other)])
    absolute = share * relative * max(10.0, float(finite.max(initial=0.0)))
    return ~np.isclose(one, other, rtol=relative, atol=absolute, equal_nan=True)


def first_difference(
    names: Sequence[str],
    got: Sequence[Array],
    right: Sequence[Array],
    terms: int,
    *,
    quantised: bool,
) -> str | None:
    """The first parameter that is not as it should be, and how; None if all are."""
    for name, one, other in zip(names, got, right, strict=True):
        if found := difference(one, other, terms, quantised=quantised):
            return f"{name}: {found}"
    return None
