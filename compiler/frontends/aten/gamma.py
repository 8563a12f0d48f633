"""The gamma function's family, computed in float64.

Sources: Lanczos' approximation with g = 7 and nine terms; asymptotic series of Abramowitz and
Stegun 6.3.18 and 6.4.11; the Euler-Maclaurin sum of Hurwitz' zeta function.
"""

import math
from collections.abc import Callable, Mapping
from fractions import Fraction
from functools import partial
from types import MappingProxyType
from typing import Any

import torch

from hybridc.compiler.frontends.aten.precise import in_float64

Tensor = Any  # torch.Tensor

LANCZOS = (
    0.99999999999980993,
    676.5203681218851,
    -1259.1392167224028,
    771.32342877765313,
    -176.61502916214059,
    12.507343278686905,
    -0.13857109526572012,
    9.9843695780195716e-6,
    1.5056327351493116e-7,
)
# B_2k of Bernoulli's numbers, from B_2 on.
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
# From here on the asymptotic series are exact to float64 with the terms above.
_FAR = 10


def _lgamma(x: Tensor) -> Tensor:
    """By Lanczos from 1/2 on, by Euler's reflection below."""
    low = x < 0.5
    z = torch.where(low, 1 - x, x) - 1
    total = torch.full_like(z, LANCZOS[0])
    for index, factor in enumerate(LANCZOS[1:], 1):
        total = total + factor / (z + index)
    t = z + 7.5
    right = 0.5 * math.log(2 * math.pi) + (z + 0.5) * torch.log(t) - t + torch.log(total)
    left = math.log(math.pi) - torch.log(torch.abs(_sine(x))) - right
    result = torch.where(low, left, right)
    return torch.where(torch.isinf(x) | ((x <= 0) & (x == torch.floor(x))), math.inf, result)


def _sine(x: Tensor) -> Tensor:
    """sin(pi x), exact at the integers."""
    return torch.sin(math.pi * (x - torch.round(x))) * _sign(torch.round(x))


def _sign(n: Tensor) -> Tensor:
    """(-1)^n of an integer."""
    return 1 - 2 * (n - 2 * torch.floor(n / 2))


def _digamma(x: Tensor) -> Tensor:
    """By the series of x + 10, from which the recurrence leads back; by reflection below 0."""
    low = x < 0
    z = torch.where(low, 1 - x, x)
    shift = torch.zeros_like(z)
    for k in range(_FAR):
        shift = shift - 1 / (z + k)
    z = z + _FAR
    power, series = 1 / (z * z), torch.zeros_like(z)
    for k in reversed(range(len(_BERNOULLI))):
        series = (series + _BERNOULLI[k] / (2 * k + 2)) * power
    right = torch.log(z) - 0.5 / z - series + shift
    offset = x - torch.round(x)
    left = right - math.pi * torch.cos(math.pi * offset) / torch.sin(math.pi * offset)
    result = torch.where(low, left, right)
    pole = torch.where(x == 0, torch.copysign(torch.full_like(x, math.inf), -x), math.nan)
    return torch.where((x <= 0) & (x == torch.floor(x)), pole, result)


def _polygamma(n: int, x: Tensor) -> Tensor:
    """The derivative of order n of digamma; below 0 the reflection's derivative of cot is added."""
    if n == 0:
        return _digamma(x)
    low = x <= 0
    z = torch.where(low, 1 - x, x)
    right = (-1) ** (n + 1) * math.factorial(n) * _hurwitz(torch.full_like(z, n + 1.0), z)
    angle = math.pi * (x - torch.round(x))
    cotangent = torch.cos(angle) / torch.sin(angle)
    left = (-1) ** n * right - math.pi ** (n + 1) * _evaluated(_cotangent(n), cotangent)
    result = torch.where(low, left, right)
    pole = math.inf if n % 2 else -math.inf
    return torch.where(low & (x == torch.floor(x)), pole, result)


def _cotangent(order: int) -> list[int]:
    """The derivative of cot of an order as a polynomial of cot, the constant first."""
    found = [0, 1]
    for _ in range(order):
        inner = [k * c for k, c in enumerate(found)][1:]
        found = [-a - b for a, b in zip([*inner, 0, 0], [0, 0, *inner], strict=True)]
    return found


def _evaluated(coefficients: list[int], x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for factor in reversed(coefficients):
        result = result * x + factor
    return result


def _hurwitz(s: Tensor, q: Tensor) -> Tensor:
    """The sum of (q + k)^-s over all k from 0 on, for q > 0 and s > 1."""
    total = torch.zeros_like(q)
    for k in range(_FAR):
        total = total + torch.pow(q + k, -s)
    a = q + _FAR
    last = torch.pow(a, -s)
    total = total + last * a / (s - 1) + 0.5 * last
    factor, power = s, last / a
    for k, number in enumerate(_BERNOULLI, 1):
        total = total + factor * power * float(Fraction(number) / math.factorial(2 * k))
        factor = factor * (s + 2 * k - 1) * (s + 2 * k)
        power = power / (a * a)
    return total


def _zeta(s: Tensor, q: Tensor) -> Tensor:
    """Hurwitz' zeta, for s > 1; below 0 for integers s alone, as torch has it.

    There the terms from q up to its fraction are those of two sums over positive numbers.
    """
    s, q = torch.broadcast_tensors(s, q)
    positive = q > 0
    first = torch.where(positive, q, q - torch.floor(q))
    safe = torch.where(first > 0, first, 1.0)
    below = torch.where(positive, 0.5, q)
    passed = _hurwitz(s, 1 - (below - torch.floor(below))) - _hurwitz(s, 1 - below)
    result = _hurwitz(s, safe) + torch.where(positive, 0.0, _sign(s) * passed)
    pole = ~positive & (q == torch.floor(q))
    undefined = (s < 1) | (~positive & ~pole & (s != torch.floor(s)))
    result = torch.where(undefined, math.nan, torch.where(pole, math.inf, result))
    return torch.where(s == 1, math.inf, result)


def _scalar_polygamma(n: int, self: Tensor) -> Tensor:
    return in_float64(partial(_polygamma, n), self)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "digamma.default": partial(in_float64, _digamma),
        "lgamma.default": partial(in_float64, _lgamma),
        "polygamma.default": _scalar_polygamma,
        "special_zeta.default": partial(in_float64, _zeta),
    }
)
