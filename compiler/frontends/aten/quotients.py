"""Quotients rounded to whole numbers, and what remains, as torch has them.

Torch's ONNX exporter divides floats: integers lose digits beyond 2^24, and the quotient of 1 and
0.1 is rounded to 10 before it is rounded down, while ten times 0.1 is more than 1.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from hybridc.compiler.frontends.aten.binary import operand
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.elementwise import float_remainder
from hybridc.compiler.frontends.onnx.node import Expr

Tensor = Any  # torch.Tensor


def _divided(self: Tensor, other: Tensor | float, *, rounding_mode: str | None = None) -> Tensor:
    a, b, kind = _both(self, other)
    if rounding_mode is None:
        return self / other
    if rounding_mode == "floor":
        return torch.floor_divide(a, b).to(kind)
    if kind.is_floating_point:
        return torch.trunc(a / b).to(kind)
    return torch.floor_divide(a - torch.fmod(a, b), b)


def _floor_quotient(self: Tensor, other: Tensor | float) -> Tensor:
    """The whole number that the quotient without its rest is."""
    a, b, kind = _both(self, other)
    if not kind.is_floating_point:
        alike = isinstance(other, torch.Tensor) and self.dtype == other.dtype
        return NotImplemented if alike else torch.floor_divide(a, b)
    rest = torch.fmod(a, b)
    quotient = (a - rest) / b
    quotient = torch.where(_on_the_other_side(rest, b), quotient - 1, quotient)
    whole = torch.floor(quotient)
    whole = torch.where(quotient - whole > 0.5, whole + 1, whole)  # the quotient is rounded too
    return torch.where(b == 0, a / b, whole).to(kind)


def _remainder(self: Tensor, other: Tensor | float) -> Tensor:
    """What remains of floats, with the divisor's sign."""
    a, b, kind = _both(self, other)
    if not kind.is_floating_point:
        return NotImplemented
    rest = torch.fmod(a, b)
    return torch.where(_on_the_other_side(rest, b), rest + b, rest).to(kind)


def _on_the_other_side(rest: Tensor, divisor: Tensor) -> Tensor:
    return torch.logical_and(rest != 0, torch.logical_xor(rest < 0, divisor < 0))


def _both(self: Tensor, other: Tensor | float) -> tuple[Tensor, Tensor, torch.dtype]:
    """Two operands in the type that they are divided in, and the result's."""
    kind = torch.result_type(self, other)
    short = kind.is_floating_point and kind.itemsize < torch.float32.itemsize
    wide = torch.float32 if short else kind
    if not isinstance(other, torch.Tensor):
        other = torch.full((), other, dtype=wide, device=self.device)
    return self.to(wide), other.to(wide), kind


def _rest(c: Call) -> Expr:
    """The remainder with the dividend's sign."""
    a, b = operand(c, "self", c.part), operand(c, "other", c.part)
    return float_remainder(c.scope, a, b) if "float" in c.part else c.scope.mod(a, b)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "div.Scalar_mode": _divided,
        "div.Tensor_mode": _divided,
        "floor_divide.Scalar": _floor_quotient,
        "floor_divide.default": _floor_quotient,
        "remainder.Scalar": _remainder,
        "remainder.Tensor": _remainder,
    }
)
CONVERTERS: Mapping[str, Converter] = MappingProxyType({"fmod.Scalar": _rest, "fmod.Tensor": _rest})
