"""Logarithms and exponentials that keep their digits near 0, and overflow where the result does.

Logarithms to a base are exact at its powers.

Torch's ONNX exporter and TVM's importer write each as the formula that it is named after.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

Tensor = Any  # torch.Tensor


def _of_one_more(self: Tensor) -> Tensor:
    """log(1 + x): what rounding made of x in the sum is divided out of the logarithm."""
    if self.is_complex():
        return NotImplemented
    x = _float(self)
    total = 1 + x
    kept = total - 1
    as_it_is = torch.logical_or(kept == 0, kept == math.inf)
    return torch.where(as_it_is, x, torch.log(total) * (x / kept))


def _one_less(self: Tensor) -> Tensor:
    """exp(x) - 1: the error that the exponential had before the difference is divided out."""
    if self.is_complex():
        return NotImplemented
    x = _float(self)
    grown = torch.exp(x)
    less = grown - 1
    done = torch.logical_or(less == -1, less == math.inf)
    result = torch.where(done, less, less * (x / torch.log(grown)))
    return torch.where(less == 0, x, result)


def log_sum(a: Tensor, b: Tensor, base: float = math.e) -> Tensor:
    """The logarithm of a sum of powers; of two infinities of one sign that infinity."""
    larger, smaller = torch.maximum(a, b), torch.minimum(a, b)
    same = torch.isinf(larger) & (larger == smaller)
    difference = torch.where(same, 0.0, smaller - larger)
    scale = math.log(base)
    more = torch.log1p(torch.exp(difference * scale)) / scale
    return torch.where(same, larger, larger + more)


def _to_base(base: float, self: Tensor) -> Tensor:
    """The logarithm to a base, whole where a number is one of its powers.

    What rounding leaves of a quotient of logarithms is seen behind a floor.
    """
    if self.is_complex():
        return NotImplemented
    x = _float(self)
    if x.dtype != torch.float64:
        # The factor in two numbers of float32, as which the ONNX exporter writes every number.
        high = float(np.float32(1 / math.log(base)))
        low = float(np.float32(1 / math.log(base) - high))
        wide = torch.log(x.double())
        whole = torch.where(torch.isfinite(wide), wide * high + wide * low, wide)
        return whole.to(x.dtype)
    whole = torch.floor(torch.log(x) / math.log(base))
    part = torch.log(x / torch.pow(base, whole)) / math.log(base)
    return torch.where(torch.isfinite(whole), whole + part, whole)


def _of_sigmoid(self: Tensor) -> Tensor:
    return torch.clamp(self, max=0) - torch.log1p(torch.exp(-torch.abs(self)))


def _of_sigmoid_for_training(self: Tensor) -> tuple[Tensor, Tensor]:
    """The same, and nothing that a gradient would be computed from."""
    return _of_sigmoid(self), self.new_zeros((0,))


def _float(x: Tensor) -> Tensor:
    """Integers in torch's default float."""
    return x if x.is_floating_point() else x.to(torch.get_default_dtype())


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "expm1.default": _one_less,
        "log10.default": partial(_to_base, 10.0),
        "log1p.default": _of_one_more,
        "log2.default": partial(_to_base, 2.0),
        "log_sigmoid.default": _of_sigmoid,
        "log_sigmoid_forward.default": _of_sigmoid_for_training,
        "logaddexp.default": log_sum,
        "logaddexp2.default": partial(log_sum, base=2.0),
    }
)
