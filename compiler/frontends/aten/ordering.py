"""Operators that look for an element by its rank, and running extremes."""

from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from types import MappingProxyType
from typing import Any

import torch
from tvm import relax, tirx

from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.aten.kernels import as_result, call
from hybridc.compiler.frontends.onnx.node import Expr, dtype, static

Tensor = Any  # torch.Tensor

_RUNNING = """
@T.prim_func(s_tir=True, private=True)
def main(
    x: T.Buffer((many, n), kind), y: T.Buffer((many, n), kind), place: T.Buffer((many, n), "int64")
):
    T.func_attr({"tirx.noalias": True})
    for row in T.serial(many):
        with T.sblock("running"):
            b = T.axis.spatial(many, row)
            T.reads(x[b, 0:n])
            T.writes(y[b, 0:n], place[b, 0:n])
            best = T.alloc_buffer((1,), kind)
            where = T.alloc_buffer((1,), "int64")
            best[0] = x[b, 0]
            where[0] = T.int64(0)
            for i in T.serial(n):
                if is_no_number(x[b, i]):  # it stays the extreme
                    best[0] = x[b, i]
                    where[0] = T.Cast("int64", i)
                else:
                    if sign * x[b, i] >= sign * best[0]:
                        best[0] = x[b, i]
                        where[0] = T.Cast("int64", i)
                y[b, i] = best[0]
                place[b, i] = where[0]
"""


def _running(sign: int) -> Converter:
    """The largest (smallest, for the sign -1) element so far, and its last place."""

    def convert(c: Call) -> tuple[Expr, ...]:
        s, x, axis = c.scope, c["self"], c["dim"]
        rank, kind = len(static(x)), dtype(x)
        if rank == 0:
            return x, s.astype(s.zeros_like(x), "int64")
        order = list(range(rank))
        order[axis], order[-1] = order[-1], order[axis]
        moved = s.permute_dims(x, order)
        shape = static(moved)
        many, n = prod(shape[:-1]), shape[-1]
        results = [((many, n), kind), ((many, n), "int64")]
        unknown = tirx.isnan if "float" in kind else lambda _: tirx.const(False, "bool")
        names = {"many": many, "n": n, "kind": kind, "sign": sign, "is_no_number": unknown}
        rows = s.reshape(moved, [many, n])
        outputs = call(s, "running", _RUNNING, [rows], results, **names)
        return tuple(s.permute_dims(as_result(s, y, shape, dtype(y)), order) for y in outputs)

    return convert


def _kth(self: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The k-th smallest, counted from 1."""
    if self.ndim == 0:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    values, places = torch.sort(self, dim=dim)
    pair = values.narrow(dim, k - 1, 1), places.narrow(dim, k - 1, 1)
    return pair if keepdim else (pair[0].squeeze(dim), pair[1].squeeze(dim))


def _median(self: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The lower of the two in the middle; what is no number, where there is such."""
    if self.ndim == 0:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    values, places = _kth(self, (self.shape[dim] + 1) // 2, dim, keepdim)
    if not self.is_floating_point():
        return values, places
    missing = torch.isnan(self)
    # The first of them; argmax finds it as the largest of zeros and ones.
    first = missing.to(torch.float32).argmax(dim, keepdim)
    found = missing.any(dim, keepdim)
    return torch.where(found, torch.nan, values), torch.where(found, first, places)


def _median_of_numbers(self: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The median of those that are numbers; sorting puts the others behind them."""
    if self.ndim == 0:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    values, places = torch.sort(self, dim=dim)
    count = (~torch.isnan(self)).sum(dim, keepdim=True)
    middle = torch.clamp((count - 1) // 2, min=0)
    pair = values.gather(dim, middle), places.gather(dim, middle)
    return pair if keepdim else (pair[0].squeeze(dim), pair[1].squeeze(dim))


def _of_all(function: Callable[..., tuple[Tensor, Tensor]], self: Tensor) -> Tensor:
    return function(self.reshape(-1), 0)[0]


def _mode(self: Tensor, dim: int = -1, keepdim: bool = False) -> tuple[Tensor, Tensor]:
    """The smallest of the commonest values, and its last place."""
    if self.ndim == 0:
        return self.clone(), torch.zeros_like(self, dtype=torch.int64)
    rows = self.movedim(dim, -1)
    same = rows.unsqueeze(-1) == rows.unsqueeze(-2)
    counts = same.sum(-1)
    commonest = counts == counts.amax(-1, keepdim=True)
    highest = rows.amax(-1, keepdim=True)
    value = torch.where(commonest, rows, highest).amin(-1, keepdim=True)
    place = torch.arange(rows.shape[-1])
    last = torch.where(rows == value, place, 0).amax(-1, keepdim=True)
    if not keepdim:
        return value.squeeze(-1), last.squeeze(-1)
    return value.movedim(-1, dim), last.movedim(-1, dim)


def _search(  # noqa: PLR0913 - torch's own signature
    sorted_sequence: Tensor,
    self: Tensor,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """How many elements of a sorted row lie before each value; before what is no number, all."""
    if sorter is not None:
        sorted_sequence = sorted_sequence.gather(-1, sorter)
    row = sorted_sequence if sorted_sequence.ndim == 1 else sorted_sequence.unsqueeze(-2)
    values = self.unsqueeze(-1)
    behind = row > values if right or side == "right" else row >= values
    return torch.logical_not(behind).sum(-1, dtype=torch.int32 if out_int32 else torch.int64)


def _stable(
    self: Tensor, *, stable: bool | None = None, dim: int = -1, descending: bool = False
) -> tuple[Tensor, Tensor]:
    """Sorted; every sort of ours leaves equal elements in their order."""
    del stable
    values, places = torch.sort(self, dim, descending)
    return values, places


def _bucket(
    self: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    return _search(boundaries, self, out_int32=out_int32, right=right)


def _angle(self: Tensor) -> Tensor:
    """Of real numbers: pi for those below 0."""
    if self.is_complex():
        return torch.atan2(self.imag, self.real)
    angle = torch.where(self < 0, torch.pi, 0.0).to(torch.get_default_dtype())
    angle = angle.to(self.dtype) if self.is_floating_point() else angle
    return torch.where(torch.isnan(self), self, angle) if self.is_floating_point() else angle


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "angle.default": _angle,
        "bucketize.Tensor": _bucket,
        "kthvalue.default": _kth,
        "median.default": partial(_of_all, _median),
        "median.dim": _median,
        "mode.default": _mode,
        "nanmedian.default": partial(_of_all, _median_of_numbers),
        "nanmedian.dim": _median_of_numbers,
        "searchsorted.Tensor": _search,
        "sort.stable": _stable,
    }
)


def _topk(c: Call) -> tuple[Expr, ...]:
    """In their order also where torch leaves it open, as routers of experts do."""
    options = {"k": c["k"], "axis": c["dim"], "largest": c["largest"], "dtype": "int64"}
    found = c.scope.topk(c["self"], ret_type="both", **options)
    return tuple(c.scope.emit(relax.TupleGetItem(found, index)) for index in range(2))


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "cummax.default": _running(1),
        "cummin.default": _running(-1),
        "topk.default": _topk,
    }
)
