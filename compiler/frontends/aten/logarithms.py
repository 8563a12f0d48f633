"""Logarithms and exponentials that keep their digits near 0, and overflow where the result does.

Torch's ONNX exporter and TVM's importer write each as the formula that it is named after.
"""

import math
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any

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
        "log1p.default": _of_one_more,
        "log_sigmoid.default": _of_sigmoid,
        "log_sigmoid_forward.default": _of_sigmoid_for_training,
        "logaddexp.default": log_sum,
        "logaddexp2.default": partial(log_sum, base=2.0),
    }
)
