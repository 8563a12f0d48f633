"""Reductions that TVM's importer lacks, and running sums of exponentials."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.aten.logarithms import log_sum
from hybridc.compiler.frontends.onnx.node import Expr, dtype, static
from hybridc.compiler.ir.rewrite import constant

Tensor = Any  # torch.Tensor


def _axes(c: Call) -> list[int] | None:
    """The axes that are reduced; None for all."""
    dim = c.arguments.get("dim")
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        return None
    return [dim] if isinstance(dim, int) else list(dim)


def _kept(c: Call) -> bool:
    return bool(c.arguments.get("keepdim", False))


def _reduced(operator: str) -> Converter:
    def convert(c: Call) -> Expr:
        x = c["self"]
        if not static(x):
            return x
        if dtype(x) == "bool":
            x = c.scope.astype(x, "int8")
        reduced = getattr(c.scope, operator)(x, axis=_axes(c), keepdims=_kept(c))
        return c.scope.astype(reduced, c.part) if dtype(reduced) != c.part else reduced

    return convert


def _accumulated(operator: str) -> Converter:
    """In the type of the result."""

    def convert(c: Call) -> Expr:
        s, x = c.scope, c["self"]
        x = s.as_type(x, c.part)
        return x if not static(x) else getattr(s, operator)(x, axis=_axes(c), keepdims=_kept(c))

    return convert


def _quantified(operator: str) -> Converter:
    """Whether all (min) or any (max) are not zero."""

    def convert(c: Call) -> Expr:
        s, x = c.scope, c["self"]
        held = s.not_equal(x, constant(np.array(0), dtype(x))) if dtype(x) != "bool" else x
        if not static(x):
            return held
        reduced = getattr(s, operator)(s.astype(held, "int8"), axis=_axes(c), keepdims=_kept(c))
        return s.not_equal(reduced, constant(np.array(0), "int8"))

    return convert


def _extreme_with_place(extreme: str, place: str) -> Converter:
    def convert(c: Call) -> tuple[Expr, Expr]:
        s, x = c.scope, c["self"]
        if not static(x):
            return x, constant(np.array(0), "int64")
        wide = s.astype(x, "int8") if dtype(x) == "bool" else x
        value = getattr(s, extreme)(wide, axis=_axes(c), keepdims=_kept(c))
        value = s.astype(value, "bool") if dtype(x) == "bool" else value
        return value, getattr(s, place)(wide, axis=c["dim"], keepdims=_kept(c))

    return convert


def _running_log_sum(self: Tensor, dim: int) -> Tensor:
    """By doubling the distance over which neighbours are added: as many steps as its logarithm."""
    if self.ndim == 0:
        return self.clone()
    sums, distance, extent = self, 1, self.shape[dim]
    while distance < extent:
        shifted = sums.narrow(dim, 0, extent - distance)
        rest = sums.narrow(dim, distance, extent - distance)
        sums = torch.cat([sums.narrow(dim, 0, distance), log_sum(shifted, rest)], dim)
        distance *= 2
    return sums


def _running(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Of integers in int64, as torch has it; importers take the type that they have."""

    def apply(self: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
        inexact = self.is_floating_point() or self.is_complex()
        if dtype is not None or inexact or self.dtype == torch.int64:
            return NotImplemented
        return function(self.to(torch.int64), dim)

    return apply


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "_is_all_true.default": torch.all,
        "_is_any_true.default": torch.any,
        "cumprod.default": _running(torch.cumprod),
        "cumsum.default": _running(torch.cumsum),
        "logcumsumexp.default": _running_log_sum,
    }
)
CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        **{f"all.{overload}": _quantified("min") for overload in ("default", "dim", "dims")},
        **{f"any.{overload}": _quantified("max") for overload in ("default", "dim", "dims")},
        "amax.default": _reduced("max"),
        "amin.default": _reduced("min"),
        "max.default": _reduced("max"),
        "max.dim": _extreme_with_place("max", "argmax"),
        "min.default": _reduced("min"),
        "min.dim": _extreme_with_place("min", "argmin"),
        "mean.default": _accumulated("mean"),
        "mean.dim": _accumulated("mean"),
        "prod.default": _accumulated("prod"),
        "prod.dim_int": _accumulated("prod"),
        "sum.default": _accumulated("sum"),
        "sum.dim_IntList": _accumulated("sum"),
    }
)
