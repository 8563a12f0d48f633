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
    count, width = offsets.shape[0] - include_last_offset, weight.shape[1]
    bags = torch.arange(count, dtype=indices.dtype)
    place = torch.arange(indices.shape[0], dtype=offsets.dtype).unsqueeze(1)
    bag = (place >= offsets[:count].unsqueeze(0)).sum(1) - 1
    inside = (bag.unsqueeze(0) == bags.unsqueeze(1)) & (indices != padding_idx).unsqueeze(0)
    rows = weight.index_select(0, indices)
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(1)
    sizes = inside.sum(1)
    member = inside.to(rows.dtype)
    if mode in (_SUM, _MEAN):
        made = member @ rows
        if mode == _MEAN:
            made = made / torch.clamp(sizes, min=1).unsqueeze(1).to(rows.dtype)
    else:
        kept = torch.where(inside.unsqueeze(2), rows.unsqueeze(0), -torch.inf)
        made = torch.where((sizes > 0).unsqueeze(1), kept.amax(1), 0.0)
    made = made.reshape(count, width)
    return made, bag.to(indices.dtype), sizes.to(indices.dtype), torch.zeros_like(sizes)


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"_embedding_bag_forward_only.default": _embedding_bag}
)
