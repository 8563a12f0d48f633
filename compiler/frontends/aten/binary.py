"""Arithmetic and comparisons of two operands, of which one may be a number."""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.elementwise import shift
from hybridc.compiler.frontends.onnx.node import Expr, Scope, dtype
from hybridc.compiler.ir.rewrite import constant

Tensor = Any  # torch.Tensor


def operand(c: Call, name: str, kind: str) -> Expr:
    """An argument as a tensor of a type."""
    value = c[name]
    if not hasattr(value, "ty"):
        return constant(np.asarray(value), kind)
    return c.scope.as_type(value, kind)


def _arithmetic(operator: str, second: str = "other") -> Converter:
    """An operator in the type of its result."""

    def convert(c: Call) -> Expr:
        a, b = operand(c, "self", c.part), operand(c, second, c.part)
        if c.part == "bool":
            return _of_booleans(c.scope, operator, a, b)
        alpha = c.arguments.get("alpha", 1)
        b = b if alpha == 1 else c.scope.multiply(b, alpha)
        return getattr(c.scope, operator)(a, b)

    return convert


def _shifted(left: bool) -> Converter:
    def convert(c: Call) -> Expr:
        a, b = operand(c, "self", c.part), operand(c, "other", c.part)
        return shift(c.scope, a, b, left)

    return convert


def _of_booleans(s: Scope, operator: str, a: Expr, b: Expr) -> Expr:
    either = operator in ("add", "maximum", "bitwise_or")
    if operator == "bitwise_xor":
        return s.logical_xor(a, b)
    return s.logical_or(a, b) if either else s.logical_and(a, b)


def _comparison(operator: str) -> Converter:
    """In the type that torch promotes the operands to."""

    def convert(c: Call) -> Expr:
        both = [c.values.get(name, c[name]) for name in ("self", "other")]
        kind = str(torch.result_type(*both)).removeprefix("torch.")
        a, b = operand(c, "self", kind), operand(c, "other", kind)
        if kind == "bool":
            a, b = (c.scope.astype(x, "int8") for x in (a, b))
        return getattr(c.scope, operator)(a, b)

    return convert


def _chosen(c: Call) -> Expr:
    condition = c["condition"]
    if dtype(condition) != "bool":
        condition = c.scope.astype(condition, "bool")
    return c.scope.where(condition, operand(c, "self", c.part), operand(c, "other", c.part))


def _clamped(c: Call) -> Expr:
    """Between a least and a largest, each of which may be missing."""
    result = operand(c, "self", c.part)
    if c.arguments.get("min") is not None:
        result = c.scope.maximum(result, operand(c, "min", c.part))
    if c.arguments.get("max") is not None:
        result = c.scope.minimum(result, operand(c, "max", c.part))
    return result


def _hypotenuse(self: Tensor, other: Tensor) -> Tensor:
    """Scaled by the larger side, so that squares do not overflow; infinite beside anything else."""
    one, two = torch.broadcast_tensors(self.abs(), other.abs())
    larger, smaller = torch.maximum(one, two), torch.minimum(one, two)
    ratio = smaller / torch.where(larger == 0, 1.0, larger)
    result = larger * torch.sqrt(1 + ratio * ratio)
    infinite = torch.logical_or(torch.isinf(one), torch.isinf(two))
    return torch.where(infinite, torch.inf, result).to(result.dtype)


def _extreme(function: Callable[..., Tensor], self: Tensor, other: Tensor) -> Tensor:
    """Of the two that is a number, where one is none."""
    result = function(self, other)
    if not result.is_floating_point():
        return result
    kept = torch.where(torch.isnan(other), self, result)
    return torch.where(torch.isnan(self), other, kept)


def _step(self: Tensor, values: Tensor) -> Tensor:
    """1 above 0, `values` at it, 0 below; 0 for what is no number, too."""
    return torch.where(self == 0, values, (self > 0).to(self.dtype))


def _greatest_divisor(self: Tensor, other: Tensor) -> Tensor:
    """Euclid's steps, as many as the type's largest numbers may need."""
    a, b = torch.broadcast_tensors(self.abs(), other.abs())
    steps = {1: 12, 2: 24, 4: 46, 8: 92}[a.element_size()]
    for _ in range(steps):
        rest = torch.where(b == 0, b, a % torch.where(b == 0, 1, b))
        a, b = torch.where(b == 0, a, b), rest
    return a


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "exp2.default": lambda self: torch.pow(2.0, self),
        "fmax.default": partial(_extreme, torch.maximum),
        "fmin.default": partial(_extreme, torch.minimum),
        "gcd.default": _greatest_divisor,
        "heaviside.default": _step,
        "hypot.default": _hypotenuse,
    }
)
_ARITHMETIC = {
    "add": ("add", ("Tensor", "Scalar")),
    "bitwise_and": ("bitwise_and", ("Tensor", "Scalar", "Scalar_Tensor")),
    "bitwise_or": ("bitwise_or", ("Tensor", "Scalar", "Scalar_Tensor")),
    "bitwise_xor": ("bitwise_xor", ("Tensor", "Scalar", "Scalar_Tensor")),
    "div": ("divide", ("Tensor", "Scalar")),
    "maximum": ("maximum", ("default",)),
    "minimum": ("minimum", ("default",)),
    "mul": ("multiply", ("Tensor", "Scalar")),
    "sub": ("subtract", ("Tensor", "Scalar")),
}
_COMPARISONS = {
    "eq": "equal",
    "ge": "greater_equal",
    "gt": "greater",
    "le": "less_equal",
    "lt": "less",
    "ne": "not_equal",
}
CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        **{
            f"{name}.{overload}": _arithmetic(operator)
            for name, (operator, overloads) in _ARITHMETIC.items()
            for overload in overloads
        },
        **{
            f"{name}.{overload}": _comparison(operator)
            for name, operator in _COMPARISONS.items()
            for overload in ("Tensor", "Scalar")
        },
        **{
            f"{name}.{overload}": _clamped
            for name in ("clamp", "clamp_max", "clamp_min")
            for overload in ("default", "Tensor")
        },
        **{
            f"bitwise_{side}_shift.{overload}": _shifted(left=side == "left")
            for side in ("left", "right")
            for overload in ("Tensor", "Tensor_Scalar", "Scalar_Tensor")
        },
        "where.self": _chosen,
    }
)
