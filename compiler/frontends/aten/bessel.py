"""Bessel's functions of order 0 and 1, and Airy's, computed in float64.

Near 0 by their power series, far from it by Hankel's expansion (Abramowitz and Stegun 9.2, 9.7,
10.4), and the modified ones of the second kind between by the trapezoidal rule on their integral
over cosh (9.6.24), which converges exponentially.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from hybridc.compiler.frontends.aten.precise import in_float64, polynomial

Tensor = Any  # torch.Tensor

_FAR = 14.0  # from here on Hankel's expansion: its 17th term is below 1e-11, the series' terms 1e4
_FAR_MODIFIED = 20.0
_TERMS = 60  # of power series: (20 / 2)^120 / 60!^2 is below 1e-43
_EXPANSION = 16
_STEP, _STEPS = 0.125, 32  # up to t = 4: exp(-2 cosh 4) is below 1e-23
_EULER = 0.57721566490153286


def _harmonic(k: int) -> float:
    return math.fsum(1 / j for j in range(1, k + 1))


def _power(order: int, sign: int) -> list[float]:
    """Factors of (x / 2)^2k in the series of J (sign -1) or I (1), over (x / 2)^order."""
    return [sign**k / (math.factorial(k) * math.factorial(k + order)) for k in range(_TERMS)]


def _second(order: int, sign: int) -> list[float]:
    """Factors of the series of the second kind that has no logarithm: harmonic numbers added."""
    weights = [_harmonic(k) + _harmonic(k + order) - 2 * _EULER for k in range(_TERMS)]
    return [a * b for a, b in zip(_power(order, sign), weights, strict=True)]


def _hankel(order: int) -> list[float]:
    """The factors a_k of x^-k."""
    found = [1.0]
    for k in range(1, _EXPANSION + 1):
        found.append(found[-1] * (4 * order * order - (2 * k - 1) ** 2) / (8 * k))
    return found


def _waves(order: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """J and Y of a large x."""
    factors, inverse = _hankel(order), 1 / x
    even = [(-1) ** i * a for i, a in enumerate(factors[0::2])]
    odd = [(-1) ** i * a for i, a in enumerate(factors[1::2])]
    p, q = polynomial(even, inverse * inverse), inverse * polynomial(odd, inverse * inverse)
    angle = x - (2 * order + 1) * math.pi / 4
    size, cosine, sine = torch.sqrt(2 / (math.pi * x)), torch.cos(angle), torch.sin(angle)
    return size * (p * cosine - q * sine), size * (p * sine + q * cosine)


def _split(x: Tensor, far: float) -> tuple[Tensor, Tensor, Tensor]:
    """Which elements are near, and the elements with the others moved inside."""
    near = x < far
    return near, torch.where(near, x, 1.0), torch.where(near, far, x)


def _first_kind(order: int, x: Tensor) -> Tensor:
    size = torch.abs(x)
    near, low, high = _split(size, _FAR)
    series = (low / 2) ** order * polynomial(_power(order, -1), low * low / 4)
    result = torch.where(near, series, _waves(order, high)[0])
    return torch.where(x < 0, -result, result) if order else result


def _second_kind(order: int, x: Tensor) -> Tensor:
    near, low, high = _split(x, _FAR)
    low = torch.where(low > 0, low, 1.0)
    square = low * low / 4
    first = (low / 2) ** order * polynomial(_power(order, -1), square)
    rest = (low / 2) ** order * polynomial(_second(order, -1), square)
    series = (2 * torch.log(low / 2) * first - rest) / math.pi
    series = series - 2 / (math.pi * low) if order else series
    result = torch.where(near, series, _waves(order, high)[1])
    return torch.where(x > 0, result, torch.where(x == 0, -math.inf, math.nan))


def _grown(order: int, scaled: bool, x: Tensor) -> Tensor:
    """I, or exp(-|x|) I."""
    size = torch.abs(x)
    near, low, high = _split(size, _FAR_MODIFIED)
    series = (low / 2) ** order * polynomial(_power(order, 1), low * low / 4)
    factors = [(-1) ** k * a for k, a in enumerate(_hankel(order))]
    expansion = polynomial(factors, 1 / high) / torch.sqrt(2 * math.pi * high)
    if scaled:
        result = torch.where(near, series * torch.exp(-low), expansion)
    else:
        # In two factors, as the exponential alone overflows first.
        half = torch.exp(high / 2)
        result = torch.where(near, series, half * expansion * half)
    return torch.where(x < 0, -result, result) if order else result


def _decaying(order: int, scaled: bool, x: Tensor) -> Tensor:
    """K, or exp(x) K."""
    near, middle = x < 2, x < _FAR_MODIFIED
    low = torch.where(near & (x > 0), x, 1.0)
    square, sign = low * low / 4, (-1) ** order
    first = (low / 2) ** order * polynomial(_power(order, 1), square)
    rest = (low / 2) ** order * polynomial(_second(order, 1), square)
    series = sign * (rest / 2 - torch.log(low / 2) * first)
    series = (series + 1 / low if order else series) * torch.exp(low)
    between = _integral(order, torch.where(near, 2.0, x))
    high = torch.where(middle, _FAR_MODIFIED, x)
    expansion = polynomial(_hankel(order), 1 / high) * torch.sqrt(math.pi / (2 * high))
    result = torch.where(near, series, torch.where(middle, between, expansion))
    result = result if scaled else result * torch.exp(-x)
    return torch.where(x > 0, result, torch.where(x == 0, math.inf, math.nan))


def _integral(order: int, x: Tensor) -> Tensor:
    """exp(x) K(x) as the sum of exp(-x (cosh t - 1)) cosh(order t) over steps of t."""
    total = torch.full_like(x, 0.5)
    for step in range(1, _STEPS + 1):
        t = step * _STEP
        total = total + math.cosh(order * t) * torch.exp(-x * (math.cosh(t) - 1))
    return total * _STEP


def _spherical(x: Tensor) -> Tensor:
    """sin(x) / x."""
    near = torch.abs(x) < 0.5
    far = torch.where(near, 1.0, x)
    terms = [(-1) ** k / math.factorial(2 * k + 1) for k in range(8)]
    result = torch.where(near, polynomial(terms, x * x), torch.sin(far) / far)
    return torch.where(torch.isinf(x), 0.0, result)


_AIRY_FAR = 6.5  # where the series has lost 8 of 16 digits and the expansion reaches as many
_AIRY_0, _AIRY_1 = 0.35502805388781724, -0.25881940379280680  # of the function and its derivative


def _airy(x: Tensor) -> Tensor:
    """Ai."""
    low = torch.where(torch.abs(x) < _AIRY_FAR, x, 0.0)
    cube = low**3
    series = _AIRY_0 * polynomial(_airy_terms(2), cube)
    series = series + _AIRY_1 * low * polynomial(_airy_terms(3), cube)
    size = torch.where(torch.abs(x) < _AIRY_FAR, _AIRY_FAR, torch.abs(x))
    phase = 2 / 3 * size * torch.sqrt(size)
    factors, root = _airy_expansion(), math.sqrt(math.pi) * size**0.25
    falling = [(-1) ** k * u for k, u in enumerate(factors)]
    right = torch.exp(-phase) / (2 * root) * polynomial(falling, 1 / phase)
    even = polynomial([(-1) ** i * u for i, u in enumerate(factors[0::2])], phase**-2)
    odd = polynomial([(-1) ** i * u for i, u in enumerate(factors[1::2])], phase**-2) / phase
    angle = phase - math.pi / 4
    left = (torch.cos(angle) * even + torch.sin(angle) * odd) / root
    result = torch.where(x <= -_AIRY_FAR, left, torch.where(x < _AIRY_FAR, series, right))
    return torch.where(torch.isinf(x), math.nan, result)


def _airy_terms(first: int) -> list[float]:
    """Factors of x^3k in a series with y'' = x y, from 1 on; `first` is 2 for that of 1, 3 of x."""
    found = [1.0]
    for k in range(1, 40):
        power = 3 * k + first - 3
        found.append(found[-1] / (power * (power + 1)))
    return found


def _airy_expansion() -> Sequence[float]:
    """u_k = (2k + 1)(2k + 3) ... (6k - 1) / (216^k k!)."""
    found = [1.0]
    for k in range(1, 14):
        found.append(found[-1] * (6 * k - 5) * (6 * k - 3) * (6 * k - 1) / ((2 * k - 1) * 216 * k))
    return found


def _of(function: Callable[..., Tensor], *options: Any) -> Callable[..., Tensor]:
    return partial(in_float64, partial(function, *options))


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "i0.default": _of(_grown, 0, False),
        "special_airy_ai.default": _of(_airy),
        "special_bessel_j0.default": _of(_first_kind, 0),
        "special_bessel_j1.default": _of(_first_kind, 1),
        "special_bessel_y0.default": _of(_second_kind, 0),
        "special_bessel_y1.default": _of(_second_kind, 1),
        "special_i0e.default": _of(_grown, 0, True),
        "special_i1.default": _of(_grown, 1, False),
        "special_i1e.default": _of(_grown, 1, True),
        "special_modified_bessel_i0.default": _of(_grown, 0, False),
        "special_modified_bessel_i1.default": _of(_grown, 1, False),
        "special_modified_bessel_k0.default": _of(_decaying, 0, False),
        "special_modified_bessel_k1.default": _of(_decaying, 1, False),
        "special_scaled_modified_bessel_k0.default": _of(_decaying, 0, True),
        "special_scaled_modified_bessel_k1.default": _of(_decaying, 1, True),
        "special_spherical_bessel_j0.default": _of(_spherical),
    }
)
