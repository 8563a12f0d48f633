"""Operators that read or write elements by places."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr, dtype, static
from hybridc.compiler.frontends.scattered_elements import scattered
from hybridc.compiler.ir.rewrite import constant

Tensor = Any  # torch.Tensor

# Torch's names of reductions, and those of Relax.
_REDUCTIONS = MappingProxyType({"sum": "add", "prod": "mul", "amax": "max", "amin": "min"})


def _masked_scatter(self: Tensor, mask: Tensor, source: Tensor) -> Tensor:
    """The n-th place that the mask marks gets the n-th element of the source."""
    self, mask = torch.broadcast_tensors(self, mask)
    if not source.numel():
        return self.clone()
    order = mask.reshape(-1).to(torch.int64).cumsum(0) - 1
    order = torch.clamp(order, 0, source.numel() - 1)
    return torch.where(mask, source.reshape(-1)[order].reshape(self.shape), self)


def _unfold(self: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """Windows along an axis, which become the last axis."""
    if self.ndim == 0:
        return self.reshape(1)[:size].clone()
    axis = dimension % self.ndim
    count = (self.shape[axis] - size) // step + 1
    places = (torch.arange(count) * step).unsqueeze(1) + torch.arange(size)
    taken = self.index_select(axis, places.reshape(-1))
    return taken.unflatten(axis, (count, size)).movedim(axis + 1, -1).contiguous()


def _as_strided(
    self: Tensor, size: Sequence[int], stride: Sequence[int], storage_offset: int | None = None
) -> Tensor:
    flat, places = _seen(self, size, stride, storage_offset)
    return flat[places.reshape(-1)].reshape(tuple(size))


def _as_strided_scatter(
    self: Tensor,
    src: Tensor,
    size: Sequence[int],
    stride: Sequence[int],
    storage_offset: int | None = None,
) -> Tensor:
    row = _row(self)
    flat, places = _seen(self, size, stride, storage_offset)
    axes = [np.arange(n) * step for n, step in zip(size, stride, strict=True)]
    apart = np.unique(sum(np.ix_(*axes)) if axes else np.zeros(1))
    if len(apart) < places.numel():
        raise UnsupportedError("places that lie on one another")
    scattered = flat.index_put((places.reshape(-1),), src.reshape(-1))
    shape = [self.shape[axis] for axis in row]
    return scattered.reshape(shape).permute([row.index(axis) for axis in range(self.ndim)])


def _seen(
    self: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None
) -> tuple[Tensor, Tensor]:
    """A tensor's elements in a row, and which of them a view with these strides shows."""
    places = torch.full((1,) * len(size), offset or 0)
    for axis, (extent, step) in enumerate(zip(size, stride, strict=True)):
        shape = [1] * len(size)
        shape[axis] = extent
        places = places + (torch.arange(extent) * step).reshape(shape)
    return self.permute(_row(self)).reshape(-1), places.expand(tuple(size))


def _row(tensor: Tensor) -> list[int]:
    """The axes in the order in which the elements lie in memory.

    Raises UnsupportedError where other elements lie before or between them.
    """
    axes = list(range(tensor.ndim))
    row = axes if tensor.is_contiguous() else sorted(axes, key=tensor.stride, reverse=True)
    if not tensor.permute(row).is_contiguous() or tensor.storage_offset():
        raise UnsupportedError("memory that lies around the tensor")
    return row


def _diagonal_scatter(
    self: Tensor, src: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    numbers = torch.arange(self.numel()).reshape(self.shape)
    places = numbers.diagonal(offset, dim1, dim2).reshape(-1)
    scattered = self.reshape(-1).index_put((places,), src.reshape(-1))
    return scattered.reshape(self.shape)


def _put(self: Tensor, index: Tensor, source: Tensor, accumulate: bool = False) -> Tensor:
    flat = self.reshape(-1)
    written = flat.index_put((index.reshape(-1),), source.reshape(-1), accumulate)
    return written.reshape(self.shape)


def _index_reduce(  # noqa: PLR0913 - torch's own signature
    self: Tensor,
    dim: int,
    index: Tensor,
    source: Tensor,
    reduce: str,
    *,
    include_self: bool = True,
) -> Tensor:
    if self.ndim == 0:
        one = self.reshape(1), index.reshape(-1), source.reshape(-1)
        return _index_reduce(one[0], 0, *one[1:], reduce, include_self=include_self).reshape(())
    axis = dim % self.ndim
    shape = [1] * source.ndim
    shape[axis] = -1
    places = index.reshape(shape).expand(source.shape)
    return torch.scatter_reduce(self, axis, places, source, reduce, include_self=include_self)


def _scatter(how: str) -> Converter:
    def convert(c: Call) -> Expr:
        return scattered(c.scope, c["self"], c["dim"], c["index"], c["src"], how)

    return convert


def _scatter_value(c: Call) -> Expr:
    kind = dtype(c["self"])
    source = constant(np.full(static(c["index"]), c["value"]), kind)
    return scattered(c.scope, c["self"], c["dim"], c["index"], source, "update")


def _scatter_two(c: Call) -> Expr:
    """Reductions, with what stood there or without; the mean is a sum over a count."""
    s, x, index, source = c.scope, c["self"], c["index"], c["src"]
    reduce, axis, kind = c["reduce"], c["dim"], dtype(x)
    if reduce == "mean":
        return _mean(c)
    if not c["include_self"]:
        neutral = constant(np.full(static(index), _lowest(reduce, kind)), kind)
        x = scattered(s, x, axis, index, neutral, "update")
    return scattered(s, x, axis, index, source, _REDUCTIONS[reduce])


def _mean(c: Call) -> Expr:
    s, x, index, kind = c.scope, c["self"], c["index"], dtype(c["self"])
    one, zero = (constant(np.full(static(index), number), kind) for number in (1, 0))
    empty = constant(np.zeros(static(x)), kind)
    count = scattered(s, empty, c["dim"], index, one, "add")
    start = x if c["include_self"] else scattered(s, x, c["dim"], index, zero, "update")
    total = scattered(s, start, c["dim"], index, c["src"], "add")
    count = s.add(count, 1.0) if c["include_self"] else s.maximum(count, 1.0)
    return s.divide(total, count) if "float" in kind else s.floor_divide(total, count)


def _lowest(reduce: str, kind: str) -> float | int:
    """What a reduction of nothing is."""
    if reduce in ("sum", "prod"):
        return int(reduce == "prod")
    if kind == "bool":
        return int(reduce == "amin")
    if "float" in kind:
        return -np.inf if reduce == "amax" else np.inf
    limits = np.iinfo(kind)
    return int(limits.min if reduce == "amax" else limits.max)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "as_strided.default": _as_strided,
        "as_strided_scatter.default": _as_strided_scatter,
        "diagonal_scatter.default": _diagonal_scatter,
        "index_reduce.default": _index_reduce,
        "masked_scatter.default": _masked_scatter,
        "put.default": _put,
        "unfold.default": _unfold,
    }
)
CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "scatter.src": _scatter("update"),
        "scatter.value": _scatter_value,
        "scatter_add.default": _scatter("add"),
        "scatter_reduce.two": _scatter_two,
    }
)
