"""Attention as torch traces it by operators of its own kernels, which importers do not know."""

from typing import Any

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.torch_import import flex_attention

Tensor = Any  # torch.Tensor


def _attention(  # noqa: PLR0913, PLR0917 - torch's own signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_bias: Tensor | None = None,
    compute_log_sumexp: bool = False,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor]:
    """The first of the results, [batch, heads, queries, features]; gradients want the others."""
    import torch

    del compute_log_sumexp, return_debug_mask
    if dropout_p:
        raise ModelError("its attention drops at random")
    return (
        torch.nn.functional.scaled_dot_product_attention(
            query,
            key,
            value,
            attn_bias,
            is_causal=is_causal,
            scale=scale,
            enable_gqa=query.shape[1] != key.shape[1],
        ),
    )


def _flash(  # noqa: PLR0913, PLR0917 - torch's own signature
    query: Tensor,
    key: Tensor,
    value: Tensor,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    return_debug_mask: bool = False,
    *,
    scale: float | None = None,
) -> tuple[Tensor]:
    """The same without a mask."""
    del return_debug_mask
    return _attention(query, key, value, None, False, dropout_p, is_causal, scale=scale)


def portable(node: Any) -> Any | None:
    """A function that computes on any device what a node of attention does.

    None if the node is of another operator, or results are read that gradients want.
    """
    import torch

    if (function := flex_attention.written_out(node.target)) is not None:
        return function

    aten = torch.ops.aten
    functions = {
        aten._scaled_dot_product_flash_attention.default: _flash,
        aten._scaled_dot_product_efficient_attention.default: _attention,
        aten._scaled_dot_product_cudnn_attention.default: _attention,
    }
    first = all(user.args[1:] == (0,) for user in node.users if user.users)
    return functions.get(node.target) if first else None
