"""Numbers rounded as if they were stored as integers, products of 8 bits, powers of integers."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

Tensor = Any  # torch.Tensor


def _rounded(
    x: Tensor, scale: Tensor | float, zero: Tensor | int, least: int, most: int
) -> tuple[Tensor, Tensor]:
    """Numbers on the grid of a scale and its zero, and which of them lie within it.

    As torch does it, by the reciprocal of the scale and with ties to even.
    """
    placed = torch.round(x * (1.0 / scale)) + zero
    kept = torch.clamp(placed, least, most)
    return ((kept - zero) * scale).to(x.dtype), placed == kept


def _switched(  # noqa: PLR0913, PLR0917 - torch's own signature
    x: Tensor, scale: Tensor, zero: Tensor, enabled: Tensor, least: int, most: int
) -> tuple[Tensor, Tensor]:
    """The same, if the switch is on."""
    rounded, inside = _rounded(x, scale, zero, least, most)
    on = enabled != 0
    return torch.where(on, rounded, x), torch.logical_or(inside, torch.logical_not(on))


def _by_channel(  # noqa: PLR0913, PLR0917 - torch's own signature
    x: Tensor, scale: Tensor, zero: Tensor, axis: int, least: int, most: int
) -> tuple[Tensor, Tensor]:
    """The same, with a scale and a zero for each element along an axis."""
    shape = [-1 if each == axis % x.dim() else 1 for each in range(x.dim())]
    return _rounded(x, scale.reshape(shape), zero.reshape(shape), least, most)


def _alone(function: Callable[..., tuple[Tensor, Tensor]]) -> Callable[..., Tensor]:
    """The numbers without what lies within the grid."""
    return lambda *args, **kwargs: function(*args, **kwargs)[0]


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A product of matrices of int8 in int32, which holds every sum."""
    return torch.matmul(a.to(torch.int32), b.to(torch.int32))


def _left(number: Tensor, places: Tensor | int) -> Tensor:
    """Bits moved to the left."""
    return torch.bitwise_left_shift(number, places)


def _right(number: Tensor, places: Tensor | int) -> Tensor:
    """Bits moved to the right, the sign's among them."""
    return torch.bitwise_right_shift(number, places)


def _negative(self: Tensor) -> Tensor:
    """Integers without sign turned round, of which TVM has no product with -1."""
    return NotImplemented if self.dtype.is_signed else torch.zeros_like(self) - self


def _power(self: Tensor | int, exponent: Tensor | int) -> Tensor:
    """Integers to powers by squares, which wrap as in torch; floats would lose the last bits."""
    kind = torch.result_type(self, exponent)
    if kind.is_floating_point or kind.is_complex:
        return NotImplemented
    base = _integers(self, kind)
    if not isinstance(exponent, torch.Tensor):
        return _to_a_number(base, exponent)
    exponent, result, power = exponent.to(kind), torch.ones_like(base), base
    for bit in range(torch.iinfo(kind).bits - kind.is_signed):
        odd = torch.bitwise_and(exponent, 1 << bit) != 0
        result = torch.where(odd, result * power, result)
        power = power * power
    if not kind.is_signed:
        return result
    # Of what is less than 1 all is cut off.
    sign = torch.where(torch.bitwise_and(exponent, 1) != 0, -1, 1).to(kind)
    unit = torch.where(base == -1, sign, (base == 1).to(kind))
    return torch.where(exponent < 0, unit, result)


def _to_a_number(base: Tensor, exponent: int) -> Tensor:
    result = None
    while exponent:
        if exponent & 1:
            result = base if result is None else result * base
        exponent >>= 1
        base = base * base if exponent else base
    return torch.ones_like(base) if result is None else result


def _integers(value: Tensor | int, kind: Any) -> Tensor:
    if isinstance(value, torch.Tensor):
        return value.to(kind)
    return torch.full((), value, dtype=torch.int64).to(kind)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "__lshift__.Scalar": _left,
        "__lshift__.Tensor": _left,
        "__rshift__.Scalar": _right,
        "__rshift__.Tensor": _right,
        "_fake_quantize_per_tensor_affine_cachemask_tensor_qparams.default": _switched,
        "_int_mm.default": _product,
        "neg.default": _negative,
        "pow.Scalar": _power,
        "pow.Tensor_Scalar": _power,
        "pow.Tensor_Tensor": _power,
        "fake_quantize_per_channel_affine.default": _alone(_by_channel),
        "fake_quantize_per_channel_affine_cachemask.default": _by_channel,
        "fake_quantize_per_tensor_affine.default": _alone(_rounded),
        "fake_quantize_per_tensor_affine.tensor_qparams": _alone(_rounded),
        "fake_quantize_per_tensor_affine_cachemask.default": _rounded,
    }
)
