"""Floats as their bits: signs, neighbours, exponents."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch
from tvm import te, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr

Tensor = Any  # torch.Tensor

_INTEGERS = MappingProxyType(
    {torch.float16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}
)


def _reinterpreted(c: Call) -> Expr:
    """The same bits as another type of as many."""
    before, after = c.values["self"].dtype, c.value.dtype
    if before.itemsize != after.itemsize or torch.bool in (before, after):
        raise UnsupportedError(f"bits of {before} as {after}")
    kind = c.part

    def kernel(x: Any) -> Any:
        return te.compute(x.shape, lambda *i: tirx.reinterpret(kind, x(*i)), name="bits")

    return c.scope.te(kernel, c["self"])


def _sign_bit(self: Tensor) -> Tensor:
    if not self.is_floating_point():
        return self < 0 if self.dtype.is_signed else torch.zeros_like(self, dtype=torch.bool)
    return self.view(_INTEGERS[self.dtype]) < 0


def _neighbour(self: Tensor, other: Tensor) -> Tensor:
    """The next float on the way to the other: integers that count floats grow away from 0."""
    x, y = torch.broadcast_tensors(self, other)
    whole = _INTEGERS[x.dtype]
    bits = x.contiguous().view(whole)
    away = (y > x) == (x > 0)
    moved = (bits + torch.where(away, 1, -1).to(whole)).view(x.dtype)
    least = torch.full_like(bits, 1).view(x.dtype)
    moved = torch.where(x == 0, torch.where(y > 0, least, -least), moved)
    moved = torch.where(x == y, y, moved)
    return torch.where(torch.isnan(x) | torch.isnan(y), torch.nan, moved)


def _parts(self: Tensor) -> tuple[Tensor, Tensor]:
    """Mantissa from 1/2 to 1 and exponent, where the number is finite and not 0."""
    wide = self.double()
    size = wide.abs()
    finite = (size > 0) & (size < torch.inf)
    safe = torch.where(finite, size, 1.0)
    exponent = torch.floor(torch.log2(safe)) + 1
    mantissa = safe * torch.pow(2.0, -exponent)
    # The logarithm is off by one at most, where it is rounded to a whole number.
    high, low = mantissa >= 1, mantissa < 0.5
    exponent = exponent + high.to(exponent.dtype) - low.to(exponent.dtype)
    mantissa = torch.where(high, mantissa / 2, torch.where(low, mantissa * 2, mantissa))
    mantissa = torch.where(wide < 0, -mantissa, mantissa)
    fraction = torch.where(finite, mantissa, wide).to(self.dtype)
    return fraction, torch.where(finite, exponent, 0.0).to(torch.int32)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "frexp.Tensor": _parts,
        "nextafter.default": _neighbour,
        "signbit.default": _sign_bit,
    }
)
CONVERTERS: Mapping[str, Converter] = MappingProxyType({"view.dtype": _reinterpreted})
