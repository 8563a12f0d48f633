"""One axis resized to an open size: places and weights are computed as the model is called.

As ONNX defines Resize, and in float32 as ONNX Runtime computes it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx_import.open_node import Expr, shape_of

_FLOATS = ("float16", "float32", "float64")
_WIDE = "float32"


@dataclass(frozen=True)
class Axis:
    """An axis, its size before and after, and the scale; None where that is their ratio."""

    axis: int
    before: Any
    after: Any
    scale: float | None = None


@dataclass(frozen=True)
class How:
    """The tensor's type and rank, and the options of a Resize; `sharp` is Keys' coefficient."""

    dtype: str
    rank: int
    mode: str
    coordinates: str
    rounding: str
    sharp: float


def resampled(x: Expr, axis: Axis, how: How) -> Expr:
    """A tensor with one axis resized.  Raises UnsupportedError for what ONNX has no formula."""
    if how.mode != "nearest" and how.dtype not in _FLOATS:
        raise UnsupportedError(f"mode={how.mode} for {how.dtype} and sizes that are not constants")
    # That rounding of ONNX Runtime's follows neither precision, but this one more often.
    kind = "float64" if (how.mode, how.rounding) == ("nearest", "round_prefer_ceil") else _WIDE
    places = _places(axis, how.coordinates, kind)
    if how.mode == "nearest":
        chosen = _rounded(places, how.rounding, kind)
        return relax.op.take(x, _index(axis, chosen), axis=axis.axis)
    shape = [1] * how.rank
    shape[axis.axis] = axis.after
    total: Expr = None
    for tap, weight in _taps(places, how):
        taken = relax.op.take(x, _index(axis, tap), axis=axis.axis)
        wide = relax.op.astype(relax.op.reshape(weight, shape_of(shape)), how.dtype)
        part = relax.op.multiply(taken, wide)
        total = part if total is None else relax.op.add(total, part)
    return total


def _number(size: Any, kind: str) -> Expr:
    """A size as a tensor of one float."""
    return relax.op.astype(relax.op.shape_to_tensor(shape_of([size])), kind)


def _const(value: float, kind: str = _WIDE) -> Expr:
    return relax.const(value, kind)


def _places(axis: Axis, coordinates: str, kind: str) -> Expr:
    """Where in the input each element of the output lies, computed in `kind`."""
    o, one, half = relax.op, _const(1.0, kind), _const(0.5, kind)
    y = o.astype(o.arange(0, axis.after, 1, "int64"), kind)
    before, after = _number(axis.before, kind), _number(axis.after, kind)
    scale = o.divide(after, before) if axis.scale is None else _const(axis.scale, kind)
    extent = after if axis.scale is None else o.multiply(scale, before)
    middle = o.divide(o.add(y, half), scale)
    centred = o.subtract(middle, half)
    match coordinates:
        case "half_pixel":
            return centred
        case "pytorch_half_pixel":
            return o.where(o.equal(after, one), _const(0.0, kind), centred)
        case "asymmetric":
            return o.divide(y, scale)
        case "tf_half_pixel_for_nn":
            return middle
        case "align_corners":
            alone = o.equal(extent, one)
            apart = o.where(alone, one, o.subtract(extent, one))
            return o.divide(
                o.multiply(y, o.where(alone, _const(0.0, kind), o.subtract(before, one))), apart
            )
        case "half_pixel_symmetric":
            share = o.subtract(one, o.divide(after, extent))
            return o.add(o.multiply(o.multiply(before, half), share), centred)
        case _:
            raise UnsupportedError(f"{coordinates} and sizes that are not constants")


def _rounded(places: Expr, rounding: str, kind: str) -> Expr:
    o, half = relax.op, _const(0.5, kind)
    down = o.floor(places)
    rest = o.subtract(places, down)
    up = o.add(down, _const(1.0, kind))
    rounded: Mapping[str, Callable[[], Expr]] = MappingProxyType(
        {
            "floor": lambda: down,
            "ceil": lambda: o.ceil(places),
            "round_prefer_floor": lambda: o.where(o.greater(rest, half), up, down),
            "round_prefer_ceil": lambda: o.where(o.greater_equal(rest, half), up, down),
        }
    )
    return rounded[rounding]()


def _index(axis: Axis, places: Expr) -> Expr:
    """Places as indices; those outside are the nearest inside."""
    last = relax.op.shape_to_tensor(shape_of([axis.before - 1]))
    whole = relax.op.astype(places, "int64")
    return relax.op.minimum(relax.op.maximum(whole, relax.const(0, "int64")), last)


def _taps(places: Expr, how: How) -> Iterator[tuple[Expr, Expr]]:
    """The elements that make up each element of the output, and their weights."""
    o = relax.op
    down = o.floor(places)
    steps, weigh = ((0, 1), _linear) if how.mode == "linear" else ((-1, 0, 1, 2), _cubic)
    for step in steps:
        tap = o.add(down, _const(float(step)))
        yield tap, weigh(o.abs(o.subtract(tap, places)), how.sharp)


def _linear(distance: Expr, _sharp: float) -> Expr:
    return relax.op.maximum(relax.op.subtract(_const(1.0), distance), _const(0.0))


def _cubic(x: Expr, a: float) -> Expr:
    """Keys' kernel (1981) at distances x >= 0 of no more than 2."""
    near = _polynomial(x, (a + 2, -(a + 3), 0.0, 1.0))
    far = _polynomial(x, (a, -5 * a, 8 * a, -4 * a))
    return relax.op.where(relax.op.less_equal(x, _const(1.0)), near, far)


def _polynomial(x: Expr, factors: tuple[float, ...]) -> Expr:
    """By Horner's rule, the highest power first."""
    total = _const(factors[0])
    for factor in factors[1:]:
        total = relax.op.add(relax.op.multiply(total, x), _const(factor))
    return total
