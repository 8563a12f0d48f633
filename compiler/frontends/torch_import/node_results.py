"""What is known of a node's results before it is imported."""

import operator
from typing import Any

import torch
from torch.utils._pytree import tree_leaves, tree_map

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.aten.call import sizes

# Larger tensors that are the same at each call are left to the compiler's own folding.
_LIMIT_BYTES = 2**20


def empty(node: Any) -> Any:
    """Tensors without elements, where a node gives nothing else; None for others."""
    value = node.meta.get("val")
    tensors = tree_leaves(value)
    if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        return None
    if any(tensor.numel() != 0 for tensor in tensors):
        return None
    zeros = tree_map(lambda t: torch.zeros(sizes(t), dtype=t.dtype), value)
    return tuple(zeros) if isinstance(zeros, list) else zeros


def used(node: Any) -> frozenset[int]:
    """The results of a node that something reads; an output may read all."""
    read = {user.args[1] for user in node.users if user.target is operator.getitem}
    whole = any(user.target is not operator.getitem for user in node.users)
    return frozenset(read | (set(range(8)) if whole else set()))


def only_checks(node: Any) -> tuple[None, None]:
    """Nothing, for what only looks whether a matrix has factors.  Raises ModelError for others."""
    if node.args[1] is not torch.ops.aten._linalg_check_errors.default:
        raise ModelError(f"operator {str(node.args[1])!r} is not supported")
    return None, None


def uncertain(target: Any) -> bool:
    """Whether an operator draws numbers, leaves memory as it is, or does something besides."""
    return (
        torch.Tag.nondeterministic_seeded in target.tags
        or target.namespace != "aten"
        or target._schema.is_mutable
        or "empty" in target.__name__
        or not target._schema.returns
    )


def small(value: Any) -> bool:
    """Whether results are tensors of static shapes and common types, and of few bytes."""
    tensors = tree_leaves(value)
    if not tensors or not all(isinstance(tensor, torch.Tensor) for tensor in tensors):
        return False
    static_sizes = all(isinstance(n, int) for tensor in tensors for n in tensor.shape)
    known = all(tensor.dtype not in (torch.bfloat16, torch.complex32) for tensor in tensors)
    return known and static_sizes and sum(t.nbytes for t in tensors) <= _LIMIT_BYTES
