"""Attention whose scores a function of the user's changes, as products and a softmax.

`torch.nn.attention.flex_attention` is traced as an operator that takes graphs: how a score is
changed, and which are left out.  Torch's own eager implementation applies these to all scores, and
is made of operators that can be traced.
"""

from collections.abc import Callable
from typing import Any


def _on_all_scores(*args: Any, **kwargs: Any) -> Any:
    """Torch's eager implementation; graphs call it by this name, as its own is an operator's."""
    from torch._higher_order_ops.flex_attention import math_attention

    return math_attention(*args, **kwargs)


def written_out(target: Any) -> Callable[..., Any] | None:
    """What computes the same as an operator if that is such attention; None for others."""
    from torch._higher_order_ops.flex_attention import flex_attention

    return _on_all_scores if target is flex_attention else None


def without(exported: Any) -> Any:
    """The program, or where it has such attention another that has none, of the same inputs."""
    import torch

    if not any(written_out(node.target) for node in exported.graph.nodes):
        return exported
    module, (args, kwargs) = exported.module(), exported.example_inputs
    for node in module.graph.nodes:
        node.target = written_out(node.target) or node.target
    module.recompile()
    return torch.export.export(module, args, kwargs)
