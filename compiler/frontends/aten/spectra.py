"""Fourier transforms of torch, whole or of some bins of what is zero in part."""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.aten.call import Call, Converter, sizes
from hybridc.compiler.frontends.onnx import spectral
from hybridc.compiler.frontends.onnx.node import Expr, Scope, dtype, static
from hybridc.compiler.ir.rewrite import constant
from hybridc.compiler.model import Array

# Names of arguments that no schema has: for each axis the places that `self` holds of the operand,
# and those of the result that are wanted.
GIVEN, WANTED = "places given", "places wanted"
_HALF, _FULL = "_fft_r2c.default", "_fft_c2c.default"
_TO_REAL = "_fft_c2r.default"


def _transform(c: Call) -> Expr:
    """One axis after another: that of half the bins is the first of them or the last."""
    s, x, axes = c.scope, c["self"], _axes(c)
    to_real = "last_dim_size" in c.arguments
    rank = len(sizes(c.values["self"])) + 1
    x = x if "self" in c.complex else s.expand_dims(x, axis=[rank - 1])
    kind = dtype(x)
    forward = bool(c.arguments.get("forward", not to_real))
    x = spectral.wide(s, x)
    for axis in axes if to_real else axes[::-1]:
        moved = spectral.to_front(s, x, axis, rank)
        if to_real and axis == axes[-1]:
            spectrum = _real(c, moved, axis)
        else:
            spectrum = _along(c, moved, axis, inverse=not forward)
        x = spectral.to_front(s, spectrum, axis, rank)
    scale = _scale(c, forward)
    x = x if scale == 1 else s.multiply(x, scale)
    x = s.squeeze(x, axis=[rank - 1]) if to_real else x
    return s.as_type(x, kind)


def _axes(c: Call) -> list[int]:
    rank = len(sizes(c.values["self"]))
    return [axis % rank for axis in c["dim"]]


def _along(c: Call, x: Expr, axis: int, inverse: bool) -> Expr:
    """The transform of the axis before the last."""
    length, bins = sizes(c.values["self"])[axis], c.results[0][0][axis]
    given, wanted = _places(c, GIVEN, axis, length), _places(c, WANTED, axis, bins)
    if GIVEN in c.arguments and is_partial(length, given, wanted):
        return spectral.partial(c.scope, x, length, given, wanted, inverse)
    bins = int(wanted[-1]) + 1  # the first ones, of which not all may be wanted
    return _those(c.scope, spectral.transform(c.scope, x, length, bins, inverse), wanted)


def _real(c: Call, x: Expr, axis: int) -> Expr:
    """The last transform of a spectrum, of which one half is given, to real numbers."""
    given = _places(c, GIVEN, axis, sizes(c.values["self"])[axis])
    length = int(c["last_dim_size"])
    wanted = _places(c, WANTED, axis, length)
    signal = spectral.real_inverse(c.scope, x, length, given, int(wanted[-1]) + 1)
    return _those(c.scope, signal, wanted)


def _places(c: Call, name: str, axis: int, extent: int) -> Array:
    known = c.arguments.get(name)
    return np.arange(extent) if known is None else known[axis]


def _those(s: Scope, x: Expr, wanted: Array) -> Expr:
    """Of the axis before the last, which has its first places, what is wanted."""
    axis = len(static(x)) - 2
    if len(wanted) == static(x)[axis]:
        return x
    return s.take(x, constant(wanted, "int64"), axis=axis, mode="clip")


def is_partial(length: int, given: Array, wanted: Array) -> bool:
    """Whether these bins are computed of these places alone, and not cut from all of them."""
    return spectral.is_worth_less(length, len(given), len(wanted))


def _scale(c: Call, forward: bool) -> float:
    """By torch's mode (0 none, 1 by the root, 2 by n), over what the transforms did already."""
    shape = c.results[0][0] if "last_dim_size" in c.arguments else sizes(c.values["self"])
    count = float(np.prod([shape[axis] for axis in c["dim"]]))
    factors: dict[int, float] = {0: 1.0, 1: count**-0.5, 2: 1 / count}
    wanted = factors.get(int(c["normalization"]))
    if wanted is None:
        raise UnsupportedError(f"normalization={c['normalization']}")
    return wanted if forward else wanted * count


TRANSFORMS: Mapping[str, Converter] = MappingProxyType(
    dict.fromkeys((_HALF, _FULL, _TO_REAL), _transform)
)
