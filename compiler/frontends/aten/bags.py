"""Sums, means and maxima of embeddings by bags."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

Tensor = Any  # torch.Tensor

_SUM, _MEAN = 0, 1  # the third mode is the maximum


def _embedding_bag(  # noqa: PLR0913, PLR0917 - torch's own signature
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int = -1,
) -> tuple[Tensor, ...]:
    """The bags' embeddings, the bag of each index, how many count in each, and nothing."""
    del scale_grad_by_freq, sparse  # of gradients
    count, places = offsets.shape[0] - include_last_offset, indices.shape[0]
    # A bag begins at each offset; several begin at one where all but the last are empty.
    begun = torch.zeros(places + 1, dtype=torch.int64)
    one = torch.ones(count, dtype=torch.int64)
    begun = begun.index_add(0, offsets[:count].to(torch.int64), one)
    bag = begun.cumsum(0)[:places] - 1
    counted = indices != padding_idx
    rows = weight.index_select(0, indices)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(1)
    sizes = torch.zeros(count, dtype=torch.int64).index_add(0, bag, counted.to(torch.int64))
    if mode in (_SUM, _MEAN):
        if padding_idx >= 0:
            rows = torch.where(counted.unsqueeze(1), rows, 0.0)
        result = torch.zeros(count, weight.shape[1], dtype=rows.dtype).index_add(0, bag, rows)
        if mode == _MEAN:
            result = result / torch.clamp(sizes, min=1).unsqueeze(1).to(rows.dtype)
    else:
        rows = torch.where(counted.unsqueeze(1), rows, -torch.inf)
        lowest = torch.full((count, weight.shape[1]), -torch.inf, dtype=rows.dtype)
        result = lowest.scatter_reduce(0, bag.unsqueeze(1).expand(rows.shape), rows, "amax")
        result = torch.where((sizes > 0).unsqueeze(1), result, 0.0)
    return result, bag.to(indices.dtype), sizes.to(indices.dtype), torch.zeros_like(sizes)


def embedding_bag(  # noqa: PLR0913, PLR0917 - torch's own signature
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    scale_grad_by_freq: bool = False,
    mode: int = 0,
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> tuple[Tensor, ...]:
    """As users call it: the place of padding may be missing, or count from the end."""
    padding = -1 if padding_idx is None else padding_idx % weight.shape[0]
    operands = (weight, indices, offsets, scale_grad_by_freq, mode, sparse, per_sample_weights)
    return _embedding_bag(*operands, include_last_offset, padding)


def bags_of_one_size(  # noqa: PLR0913, PLR0917 - torch's own signature
    input: Tensor,  # noqa: A002
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Where each row of a matrix is a bag, no place has to be looked for."""
    if input.ndim != 2 or offsets is not None or max_norm is not None or not input.numel():
        whole = (input, weight, offsets, max_norm, norm_type, scale_grad_by_freq, mode, sparse)
        result = torch.nn.functional.embedding_bag(
            *whole, per_sample_weights, include_last_offset, padding_idx
        )
        return result
    rows = torch.nn.functional.embedding(input, weight)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(2)
    if padding_idx is None:
        return rows.amax(1) if mode == "max" else getattr(rows, mode)(1)
    counted = input != padding_idx % weight.shape[0]
    sizes = counted.sum(1, keepdim=True)
    if mode == "max":
        result = torch.where(counted.unsqueeze(2), rows, -torch.inf).amax(1)
        return torch.where(sizes > 0, result, 0.0)
    result = torch.where(counted.unsqueeze(2), rows, 0.0).sum(1)
    return result / sizes.clamp(min=1).to(result.dtype) if mode == "mean" else result


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "_embedding_bag.default": _embedding_bag,
        "_embedding_bag_forward_only.default": _embedding_bag,
        "embedding_bag.default": embedding_bag,
        "embedding_bag.padding_idx": embedding_bag,
    }
)
TRACEABLE: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType(
    {torch.nn.functional.embedding_bag: bags_of_one_size}
)
