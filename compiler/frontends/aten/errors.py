"""The error function's family, computed in float64.

erfc(x) is t exp(-x^2 + P(t)) with t = 2 / (2 + x) for x >= 0, where P is smooth: Chebyshev's
interpolation of it is computed here, from the standard library's erfc and its continued fraction.
"""

import math
from collections.abc import Callable, Mapping
from functools import cache, partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from hybridc.compiler.frontends.aten.precise import in_float64, polynomial

Tensor = Any  # torch.Tensor

_DEGREE = 28  # the error is below 1e-15 from here on
_NEWTON = 3  # steps; each doubles the digits of a start that has three
_WINITZKI = 0.147


@cache
def _exponent() -> tuple[float, ...]:
    """P as a polynomial of 2 t - 1; its terms fall fast enough to be summed as powers."""
    fit = np.polynomial.chebyshev.chebinterpolate(np.vectorize(_exponent_at), _DEGREE)
    return tuple(map(float, np.polynomial.chebyshev.cheb2poly(fit)))


def _exponent_at(place: float) -> float:
    t = (place + 1) / 2
    return math.log(_scaled(2 / t - 2) / t)


def _scaled(x: float) -> float:
    """exp(x^2) erfc(x) for x >= 0."""
    if x < 2:
        return math.exp(x * x) * math.erfc(x)
    tail = 0.0
    for k in range(200, 0, -1):  # far more terms than x = 2 needs
        tail = k / 2 / (x + tail)
    return 1 / (math.sqrt(math.pi) * (x + tail))


def _erfcx_right(x: Tensor) -> Tensor:
    t = 2 / (2 + x)
    return t * torch.exp(polynomial(_exponent(), 2 * t - 1))


def _erfcx(x: Tensor) -> Tensor:
    right = _erfcx_right(torch.abs(x))
    return torch.where(x < 0, 2 * torch.exp(x * x) - right, right)


def _erfc(x: Tensor) -> Tensor:
    right = _erfcx_right(torch.abs(x)) * torch.exp(-x * x)
    return torch.where(x < 0, 2 - right, right)


def _inverse_complement(z: Tensor) -> Tensor:
    """Y >= 0 with erfc(y) = z, for 0 < z <= 1: Winitzki's formula, then Newton's on logarithms."""
    logarithm = torch.log(z * (2 - z))
    half = 2 / (math.pi * _WINITZKI) + logarithm / 2
    y = torch.sqrt(torch.sqrt(half * half - logarithm / _WINITZKI) - half)
    for _ in range(_NEWTON):
        scaled = _erfcx_right(y)
        fault = torch.log(scaled) - y * y - torch.log(z)
        y = torch.clamp(y + fault * scaled * (math.sqrt(math.pi) / 2), min=0)
    return y


def _erfinv(x: Tensor) -> Tensor:
    size = torch.abs(x)
    inside = torch.where(size < 1, size, 0.5)
    far = _inverse_complement(1 - inside)
    square = x * x
    # The series at 0, to the seventh power.
    near = polynomial((1, math.pi / 12, 7 * math.pi**2 / 480, 127 * math.pi**3 / 40320), square)
    near = math.sqrt(math.pi) / 2 * size * near
    result = torch.where(size < 0.01, near, far)
    result = torch.where(size < 1, result, torch.where(size == 1, math.inf, math.nan))
    return torch.where(x < 0, -result, result)


def _ndtri(p: Tensor) -> Tensor:
    """The quantile of the normal distribution."""
    low = p < 0.5
    side = torch.where(low, p, 1 - p)
    inside = (side > 0) & (side <= 0.5)
    y = math.sqrt(2) * _inverse_complement(2 * torch.where(inside, side, 0.25))
    y = torch.where(inside, y, torch.where(side == 0, math.inf, math.nan))
    return torch.where(low, -y, y)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "erfc.default": partial(in_float64, _erfc),
        "erfinv.default": partial(in_float64, _erfinv),
        "special_erfcx.default": partial(in_float64, _erfcx),
        "special_ndtri.default": partial(in_float64, _ndtri),
    }
)
