"""Discrete Fourier transforms, as products with constant matrices of cosines and sines."""

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import (
    Converter,
    Expr,
    Node,
    dtype,
    is_float,
    static,
)
from hybridc.compiler.ir.rewrite import Extent, are_known, constant
from hybridc.compiler.model import Array

# A matrix of this side takes 64 MiB in float32; a fast transform would be wanted beyond.
_LONGEST = 4096
_SHORTEST = 64  # below, one product is as fast as two and the transposes between them
_WHOLE = 512  # up to here a matrix of complex numbers is held whole: 8 MiB in float64


def _dft(node: Node) -> Expr:
    """Complex numbers are pairs in the last axis; a real input has one there."""
    x, s = node.inputs[0], node.scope
    rank = len(node.shape())
    inverse, one_sided = bool(node.get("inverse", 0)), bool(node.get("onesided", 0))
    # The axis became an input in opset 20.
    axis = node.get("axis", 1) if node.opset < 20 else int(node.value(2, -2))
    axis %= rank
    parts = node.shape()[-1]
    extent = node.shape()[axis]
    usual = 2 * (extent - 1) if inverse and one_sided else extent
    length = int(np.ravel(node.value(1, usual))[0])
    _check(length, x, parts)
    moved = to_front(s, wide(s, x), axis, rank)
    if inverse and one_sided:
        spectrum = real_inverse(s, moved, length)
    else:
        bins = length // 2 + 1 if one_sided else length
        spectrum = transform(s, moved, length, bins, inverse)
    return s.as_type(to_front(s, spectrum, axis, rank), dtype(x))


def wide(s: Expr, x: Expr) -> Expr:
    """As float64: bins that cancel to nothing would keep the rounding of all that was added."""
    return s.as_type(x, "float64")


def _check(length: int, x: Expr, parts: Extent) -> None:
    if not are_known([parts]) or parts not in (1, 2):
        raise UnsupportedError(f"numbers of {parts} parts; complex ones have 2, real ones 1")
    if length > _LONGEST:
        raise UnsupportedError(f"a length of {length}; the most is {_LONGEST}")
    if not is_float(x):
        raise UnsupportedError(f"elements of {dtype(x)}")


def to_front(s: Expr, x: Expr, axis: int, rank: int) -> Expr:
    """Swap the axis with the one before the last, where a product takes it."""
    order = list(range(rank))
    order[axis], order[rank - 2] = order[rank - 2], order[axis]
    return x if axis == rank - 2 else s.permute_dims(x, order)


def transform(s: Expr, x: Expr, length: int, bins: int, inverse: bool) -> Expr:
    """`[..., given, 1 or 2]` to `[..., bins, 2]`: zeros behind, or cut, to the length.

    One product of rows with a constant matrix, in which real and imaginary numbers alternate as
    they do in the rows: nothing is taken apart and put together.
    """
    extent, parts = static(x)[-2:]
    if (first := _factor(length)) > 1:
        return _by_factors(s, x, (first, length // first), bins, inverse)
    used = min(extent, length)
    turn = _turns(used, bins, length)
    turn = turn / length if inverse else turn.conj()
    x = _cut(s, x, used)
    if parts == 1:
        return _pairs(s, _times(s, _flat(s, x), _alternating(turn)), bins)
    if length <= _WHOLE:
        return _pairs(s, _times(s, _flat(s, x), _complex(turn)), bins)
    # (a + bi) t = a t + b (it), by halves of the matrix that a whole one would hold twice.
    real, imaginary = _part(s, x, 0), _part(s, x, 1)
    cosines, sines = turn.real, turn.imag
    re = s.subtract(_times(s, real, cosines), _times(s, imaginary, sines))
    im = s.add(_times(s, real, sines), _times(s, imaginary, cosines))
    return s.concat([s.expand_dims(part, [len(static(part))]) for part in (re, im)], axis=-1)


def _factor(length: int) -> int:
    """The largest factor up to the root of a length that is worth to be taken apart, or 1."""
    if length < _SHORTEST:
        return 1
    return next(n for n in range(math.isqrt(length), 0, -1) if length % n == 0)


def _by_factors(  # noqa: PLR0913, PLR0917 - what a transform is made of
    s: Expr, x: Expr, factors: tuple[int, int], bins: int, inverse: bool, parts: int = 2
) -> Expr:
    """Transforms of the one factor's length, and then of the other's (Cooley and Tukey).

    Number `n = b first + c` and bin `k = p + a q`, of lengths `a` and `b`, have the turn
    `n k / ab = first p / a + c (p + a q) / ab`: a matrix for all, and then one for each `p`.  Of
    the bins both `parts` are given, or the real one alone.
    """
    (a, b), (*outer, extent, given) = factors, static(x)
    length, rows = a * b, math.prod(outer)
    used = -(-min(extent, length) // b)  # behind these numbers all are zero
    x = s.reshape(_cut(s, x, min(extent, length)), [rows, min(extent, length), given])
    if extent < used * b:
        x = s.nn.pad(x, [0, 0, 0, used * b - extent, 0, 0])
    x = s.permute_dims(s.reshape(x, [rows, used, b, given]), [0, 2, 1, 3])
    turn = _turns(used, a, a)
    inner = _complex(turn if inverse else turn.conj())
    inner = inner.reshape(used, 2, 2 * a)[:, :given].reshape(used * given, 2 * a)
    x = s.reshape(_times(s, _flat(s, x), inner), [rows, b, a, 2])
    x = s.reshape(s.permute_dims(x, [2, 0, 1, 3]), [a, rows, 2 * b])
    columns = -(-bins // a)
    turn = _turns(b, a * columns, length)
    turn = turn / length if inverse else turn.conj()
    matrices = np.stack([_complex(turn[:, p::a]) for p in range(a)])[..., :: 3 - parts]
    product = s.matmul(x, constant(np.ascontiguousarray(matrices), dtype(x)))
    spectrum = s.permute_dims(s.reshape(product, [a, rows, columns, parts]), [1, 2, 0, 3])
    spectrum = s.reshape(spectrum, [rows, columns * a, parts])
    return s.reshape(_cut(s, spectrum, bins), [*outer, bins, parts])


def _complex(turn: Array) -> Array:
    """What rows of pairs are multiplied with to be multiplied with a complex matrix."""
    pairs = np.stack([_alternating(turn), _alternating(1j * turn)], axis=1)
    return pairs.reshape(2 * len(turn), -1)


def partial(  # noqa: PLR0913, PLR0917 - what a transform is made of
    s: Expr, x: Expr, length: int, places: Array, bins: Array, inverse: bool
) -> Expr:
    """`[..., places, 1 or 2]` to `[..., bins, 2]`: zeros at all other places, and no other bins."""
    parts = static(x)[-1]
    turn = _turn(places, bins, length)
    turn = turn / length if inverse else turn.conj()
    matrix = _alternating(turn) if parts == 1 else _complex(turn)
    return _pairs(s, _times(s, _flat(s, x), matrix), len(bins))


def is_worth_less(length: int, places: int, bins: int) -> bool:
    """Whether one product of so many places and bins takes less than the whole transform.

    That takes `length (a + b)` products by factors a and b, and as long as three times as many for
    the transposes between them.
    """
    whole = length * length
    if (first := _factor(length)) > 1:
        whole = 4 * length * (first + length // first)
    return places * bins < min(whole, _WHOLE**2)


def real_inverse(
    s: Expr, x: Expr, length: int, places: Array | None = None, wanted: int | None = None
) -> Expr:
    """One half of a spectrum to real numbers; the other half is its conjugate.

    The bins given are those at `places`, in rising order; all others are zero.  Of the numbers the
    first `wanted` are computed.
    """
    extent, parts = static(x)[-2:]
    places = np.arange(extent) if places is None else places
    places = places[: int(np.searchsorted(places, length // 2 + 1))]
    wanted, used = length if wanted is None else wanted, len(places)
    twice = np.where((places == 0) | (2 * places == length), 1.0, 2.0)
    x = _cut(s, x, used)
    first = _factor(length)
    if first > 1 and places[-1] + 1 == used and not is_worth_less(length, used, wanted):
        x = s.multiply(x, constant(twice[:, None], dtype(x)))
        return _by_factors(s, x, (first, length // first), wanted, inverse=True, parts=1)
    turn = _turn(places, np.arange(wanted), length) * twice[:, None] / length
    matrix = np.stack([turn.real, -turn.imag], axis=1)[:, :parts].reshape(used * parts, wanted)
    signal = _times(s, _flat(s, x), matrix)
    return s.expand_dims(signal, [len(static(signal))])


def _turns(rows: int, columns: int, length: int) -> Array:
    """`exp(2 pi i row column / length)` for the first rows and columns."""
    return _turn(np.arange(rows), np.arange(columns), length)


def _turn(rows: Array, columns: Array, length: int) -> Array:
    """`exp(2 pi i row column / length)`, with ones and zeros where quarters of a turn have them.

    Else the imaginary part of what is real would be a rounding, and its angle as well -pi as pi.
    """
    steps = np.arange(length)
    circle = np.exp(2j * np.pi * steps / length)
    quarter = 4 * steps % length == 0
    circle[quarter] = circle[quarter].round()
    turns: Array = circle[np.outer(rows, columns) % length]
    return turns


def _alternating(matrix: Array) -> Array:
    """Complex numbers of a matrix as pairs of neighbours in its rows, without -0."""
    return np.stack([matrix.real, matrix.imag], axis=-1).reshape(len(matrix), -1) + 0.0


def _cut(s: Expr, x: Expr, used: int) -> Expr:
    """The first numbers of each row."""
    rank = len(static(x))
    return x if static(x)[-2] == used else s.strided_slice(x, [rank - 2], [0], [used])


def _part(s: Expr, x: Expr, part: int) -> Expr:
    """The real or imaginary numbers, `[..., used]`."""
    rank = len(static(x))
    return s.squeeze(s.strided_slice(x, [rank - 1], [part], [part + 1]), axis=[rank - 1])


def _flat(s: Expr, x: Expr) -> Expr:
    """The last two axes as one."""
    *outer, used, parts = static(x)
    return s.reshape(x, [*outer, used * parts])


def _times(s: Expr, x: Expr, matrix: Array) -> Expr:
    """`[..., n]` times a matrix, as one product."""
    *outer, count = static(x)
    product = s.matmul(s.reshape(x, [-1, count]), constant(matrix, dtype(x)))
    return s.reshape(product, [*outer, matrix.shape[1]])


def _pairs(s: Expr, x: Expr, bins: int) -> Expr:
    return s.reshape(x, [*static(x)[:-1], bins, 2])


def _stft(node: Node) -> Expr:
    """Windows of a signal `[batch, length, 1 or 2]`, transformed: `[batch, frames, bins, 2]`."""
    x, s = node.inputs[0], node.scope
    batch, samples, parts = node.shape() if len(node.shape()) == 3 else (*node.shape(), 1)
    step, window = int(np.ravel(node.value(1))[0]), node.input(2)
    usual = samples if window is None else static(window)[0]
    length = int(np.ravel(node.value(3, usual))[0])
    _check(length, x, parts if len(node.shape()) == 3 else 1)
    if window is not None and static(window)[0] != length:
        raise UnsupportedError("a window of another length than the frame's")
    frames = 1 + (samples - length) // step
    places = np.arange(frames)[:, None] * step + np.arange(length)
    x = s.reshape(x, [batch, samples, parts])
    cut = s.take(x, relax.const(places.ravel(), "int64"), axis=1)
    cut = s.reshape(cut, [batch, frames, length, parts])
    if window is not None:
        cut = s.multiply(cut, s.reshape(window, [1, 1, length, 1]))
    cut = wide(s, cut)
    bins = length // 2 + 1 if node.get("onesided", 1) else length
    return s.as_type(transform(s, cut, length, bins, inverse=False), dtype(x))


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"DFT": _dft, "STFT": _stft})
