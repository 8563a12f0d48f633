"""Distances between rows, and counts of elements in bins."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

Tensor = Any  # torch.Tensor


def _norm(difference: Tensor, p: float) -> Tensor:
    """The p-norm of the last axis."""
    size = difference.abs()
    if p == 0:
        return (size != 0).to(size.dtype).sum(-1)
    if p == 1:
        return size.sum(-1)
    if p == 2:
        return (size * size).sum(-1).sqrt()
    if math.isinf(p):
        return size.amax(-1)
    return size.pow(p).sum(-1).pow(1 / p)


def _between(x1: Tensor, x2: Tensor, p: float, compute_mode: int | None) -> Tensor:
    del compute_mode  # how torch computes the Euclidean one
    shape = (*torch.broadcast_shapes(x1.shape[:-2], x2.shape[:-2]), x1.shape[-2], x2.shape[-2])
    if not x1.shape[-1]:
        return x1.new_zeros(shape)
    return _norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p)


def _within(self: Tensor, p: float = 2) -> Tensor:
    """Of each pair of rows, the first of which comes before the second."""
    rows = self.shape[0]
    if rows < 2 or not self.shape[1]:
        return self.new_zeros(max(0, rows * (rows - 1) // 2))
    first, second = torch.triu_indices(rows, rows, 1).unbind(0)
    return _norm(self.index_select(0, first) - self.index_select(0, second), p)


def _histogram(self: Tensor, bins: int = 100, min: float = 0, max: float = 0) -> Tensor:  # noqa: A002
    """Counts in bins of one width; between the extremes where no range is given."""
    x = self.reshape(-1)
    low, high = x.new_full((), min), x.new_full((), max)
    if min == max:
        low, high = (x.amin(), x.amax()) if x.numel() else (low, high)
        same = low == high
        low, high = torch.where(same, low - 1, low), torch.where(same, high + 1, high)
    place = torch.floor((x - low) / (high - low) * bins).clamp(max=bins - 1)
    inside = (x >= low) & (x <= high)
    numbers = torch.arange(bins, dtype=place.dtype)
    hits = (place.unsqueeze(-1) == numbers) & inside.unsqueeze(-1)
    return hits.to(self.dtype).sum(0)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "_cdist_forward.default": _between,
        "_pdist_forward.default": _within,
        "histc.default": _histogram,
    }
)
