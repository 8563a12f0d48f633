"""Attention and layers of transformers that torch computes by one operator without gradients.

`torch.nn.MultiheadAttention` and `torch.nn.TransformerEncoderLayer` call them in evaluation.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

Tensor = Any  # torch.Tensor
_OF_KEYS = 1  # the type of a mask [batch, keys]; others are of queries by keys


def _attention(  # noqa: PLR0913, PLR0917 - torch's own signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    embed_dim: int,
    num_head: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> tuple[Tensor, Tensor]:
    """The output [batch, queries, embedding] and the weights, which are empty where not needed."""
    depth = embed_dim // num_head
    sides = zip((query, key, value), qkv_weight.chunk(3), qkv_bias.chunk(3), strict=True)
    q, k, v = (
        torch.nn.functional.linear(side, weight, bias).unflatten(-1, (num_head, depth))
        for side, weight, bias in sides
    )
    q, k, v = (heads.transpose(1, 2) for heads in (q, k, v))
    scores = (q / math.sqrt(depth)) @ k.transpose(-2, -1)
    if mask is not None:
        scores = scores.masked_fill(_along_keys(mask.to(torch.bool), mask_type), -math.inf)
    weights = torch.softmax(scores, -1)
    joined = (weights @ v).transpose(1, 2).flatten(2)
    output = torch.nn.functional.linear(joined, proj_weight, proj_bias)
    if not need_weights:
        return output, query.new_zeros(0)
    return output, weights.mean(1) if average_attn_weights else weights


def _along_keys(mask: Tensor, mask_type: int | None) -> Tensor:
    """A mask that goes with scores [batch, heads, queries, keys]."""
    return mask[:, None, None, :] if mask_type == _OF_KEYS else mask


def _layer(  # noqa: PLR0913, PLR0917 - torch's own signature
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Tensor:
    """Attention and two linear layers, each beside what it reads, with a norm before or after."""
    linear = torch.nn.functional.linear
    active = torch.nn.functional.gelu if use_gelu else torch.relu

    def attended(x: Tensor) -> Tensor:
        weights = (qkv_weight, qkv_bias, proj_weight, proj_bias)
        return _attention(
            x, x, x, embed_dim, num_heads, *weights, mask, need_weights=False, mask_type=mask_type
        )[0]

    def fed(x: Tensor) -> Tensor:
        return linear(active(linear(x, ffn_weight_1, ffn_bias_1)), ffn_weight_2, ffn_bias_2)

    def first(x: Tensor) -> Tensor:
        return torch.layer_norm(x, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def second(x: Tensor) -> Tensor:
        return torch.layer_norm(x, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    if norm_first:
        x = src + attended(first(src))
        return x + fed(second(x))
    x = first(src + attended(src))
    return second(x + fed(x))


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "_native_multi_head_attention.default": _attention,
        "_transformer_encoder_layer_fwd.default": _layer,
    }
)
