"""Products of matrices, in the type of their operands: TVM's importer makes all of them float32."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr


def _summed(self: Any, batch1: Any, batch2: Any, *, beta: float = 1, alpha: float = 1) -> Any:
    """A sum of products, added."""
    product = (batch1 @ batch2).sum(0)
    product = product if alpha == 1 else product * alpha
    return product + (self if beta == 1 else self * beta) if beta else product


def _threefold(  # noqa: PLR0913, PLR0917 - torch's own signature
    i1: Any,
    i2: Any,
    i3: Any,
    expand1: Sequence[int],
    expand2: Sequence[int],
    expand3: Sequence[int],
    sumdim: Sequence[int],
    unroll_dim: int = 1,
) -> Any:
    """The product of three tensors with axes put in, summed over some."""
    del unroll_dim  # how torch goes about it
    for axes, index in ((expand1, 0), (expand2, 1), (expand3, 2)):
        for axis in axes:
            i1, i2, i3 = (
                x.unsqueeze(axis) if i == index else x for i, x in enumerate((i1, i2, i3))
            )
    return (i1 * i2 * i3).sum(tuple(sumdim))


def _grouped(
    self: Any,
    mat2: Any,
    offs: Any = None,
    bias: Any = None,
    out_dtype: Any = None,
) -> Any:
    """Rows times the matrix of their group; the groups end at the places `offs`.

    Which rows are a group's only the data tell.  So few of them choose a matrix each; more are all
    multiplied with each matrix.  Rows behind the last group are zeros.
    """
    if self.ndim != 2 or mat2.ndim != 3 or offs is None:
        raise UnsupportedError("groups of columns")
    rows, groups = self.shape[0], mat2.shape[0]
    place = torch.arange(rows, dtype=offs.dtype).unsqueeze(1)
    group = (place >= offs.unsqueeze(0)).sum(1).unsqueeze(1)
    result = self.new_zeros(rows, mat2.shape[2])
    if isinstance(rows, int) and rows <= groups:
        matrix = group.squeeze(1).clamp(max=groups - 1)
        product = (self.unsqueeze(1) @ mat2[matrix]).squeeze(1)
        product = product if bias is None else product + bias[matrix]
        result = torch.where(group < groups, product, result)
    else:
        for index in range(groups):
            product = self @ mat2[index]
            product = product if bias is None else product + bias[index]
            result = torch.where(group == index, product, result)
    return result if out_dtype is None else result.to(out_dtype)


def _grouped_of_transformers(input: Any, weight: Any, offs: Any) -> Any:  # noqa: A002 - its name
    """The same, as the transformers have it for types that torch's own does not take."""
    return _grouped(input, weight, offs)


def _product(second: str) -> Converter:
    def convert(c: Call) -> Expr:
        return c.scope.matmul(c["self"], c[second])

    return convert


def _added(left: str, right: str) -> Converter:
    """Beta * self + alpha * left right."""

    def convert(c: Call) -> Expr:
        s, product = c.scope, c.scope.matmul(c[left], c[right])
        if c["alpha"] != 1:
            product = s.multiply(product, c["alpha"])
        if c["beta"] == 0:
            return product
        added = c["self"] if c["beta"] == 1 else s.multiply(c["self"], c["beta"])
        return s.add(product, added)

    return convert


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "_grouped_mm.default": _grouped,
        "_trilinear.default": _threefold,
        "addbmm.default": _summed,
    }
)
# Operators of other libraries, which need not be here.
DECOMPOSITIONS_OF_LIBRARIES: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"transformers.grouped_mm_fallback.default": _grouped_of_transformers}
)
CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "addmm.default": _added("mat1", "mat2"),
        "baddbmm.default": _added("batch1", "batch2"),
        "bmm.default": _product("mat2"),
        "matmul.default": _product("other"),
        "mm.default": _product("mat2"),
    }
)
