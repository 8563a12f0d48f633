"""Elementwise functions computed in float64, and rounded once to the type that torch gives."""

from collections.abc import Callable
from typing import Any

import torch

Tensor = Any  # torch.Tensor


def in_float64(function: Callable[..., Tensor], *operands: Tensor) -> Tensor:
    """Apply a function to operands in float64; integers give torch's default float."""
    kinds = [operand.dtype for operand in operands]
    kind = kinds[0]
    for other in kinds[1:]:
        kind = torch.promote_types(kind, other)
    if not kind.is_floating_point:
        kind = torch.get_default_dtype()
    return function(*(operand.to(torch.float64) for operand in operands)).to(kind)


def polynomial(coefficients: Any, x: Tensor) -> Tensor:
    """The polynomial's values by Horner's rule, the coefficient of the highest power last."""
    result = torch.full_like(x, coefficients[-1])
    for factor in reversed(coefficients[:-1]):
        result = result * x + factor
    return result
