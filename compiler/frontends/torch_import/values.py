"""What torch says of the values of an exported program, and how models hold them."""

import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from hybridc.compiler.frontends.aten import recurrent
from hybridc.compiler.frontends.torch_reference import to_numpy
from hybridc.compiler.model import Array, TensorSpec

# In training they write to their arguments 3 and 4; argument 5 tells.
_NORMS = ("batch_norm.default", "instance_norm.default", "native_batch_norm.default")


def values_of(exported: Any) -> dict[str, Any]:
    """What torch knows of each value by name: a tensor without data, most often."""
    return {node.name: node.meta.get("val") for node in exported.graph.nodes}


def argument_values(node: Any) -> dict[str, Any]:
    """What torch says of the arguments that are tensors, by name."""
    import torch

    known = node.target._schema.arguments
    arguments = dict(zip((argument.name for argument in known), node.args, strict=False))
    values = {
        name: getattr(v, "meta", {}).get("val") for name, v in (arguments | node.kwargs).items()
    }
    return {name: v for name, v in values.items() if isinstance(v, torch.Tensor)}


def spec_of(name: str, value: Any) -> TensorSpec:
    """A tensor of torch's; complex numbers are pairs of real ones in a last axis, as in ONNX."""
    pair, part = ((2,), value.real) if value.is_complex() else ((), value)
    return TensorSpec(name, (*value.shape, *pair), str(part.dtype).removeprefix("torch."))


def examples(exported: Any, arguments: Sequence[Any]) -> tuple[dict[str, Array], ...]:
    """The inputs that a program was exported with, where it kept them, and numbers are in them.

    `arguments` are its flattened arguments; those that are tensors, by name.
    """
    from torch._subclasses import FakeTensor
    from torch.utils._pytree import tree_leaves

    leaves = tree_leaves(exported.example_inputs)
    fake = any(isinstance(leaf, FakeTensor) or getattr(leaf, "is_meta", False) for leaf in leaves)
    if fake or len(leaves) != len(arguments):
        return ()
    pairs = zip(arguments, leaves, strict=True)
    feed = {name: to_numpy(leaf).copy() for name, leaf in pairs if isinstance(name, str)}
    return () if any(map(_holds_nan, feed.values())) else (feed,)


def _holds_nan(array: Array) -> bool:
    return array.dtype.kind in "fV" and bool(np.isnan(array).any())


def packed_kind(module: Any) -> str | None:
    """The kind of a part that `torch.ao` has quantised, whose weights no trace can look into."""
    kinds = (f"{type(part).__module__}.{type(part).__qualname__}" for part in module.modules())
    packed = ("torch.ao.nn.quantized.", "torch.ao.nn.intrinsic.quantized.")
    return next((kind for kind in kinds if kind.startswith(packed)), None)


def of_pairs(tensor: Any, value: Any) -> Any:
    """A tensor of pairs as the complex one that it stands for, of which torch says `value`."""
    import torch

    return torch.view_as_complex(tensor) if value.is_complex() else tensor


def written(exported: Any) -> list[str]:
    """The names of the inputs and buffers that a program writes to.

    A program in functional form gives what it would write as further outputs.
    """
    signature = exported.graph_signature
    given = {*signature.buffers_to_mutate.values(), *signature.user_inputs_to_mutate.values()}
    for node in exported.graph.nodes:
        roots = map(_shown, _changed(node))
        given.update(root.name for root in roots if root.op == "placeholder")
    return sorted(given)


def _changed(node: Any) -> Iterator[Any]:
    """The nodes whose values a node writes to in place."""
    if _counts_statistics(node):
        yield node.args[3]
    schema = getattr(node.target, "_schema", None)
    if schema is None or not schema.is_mutable:
        return
    known = schema.arguments
    values = dict(zip((argument.name for argument in known), node.args, strict=False))
    values |= node.kwargs
    for argument in known:
        value = values.get(argument.name)
        if value is not None and argument.alias_info and argument.alias_info.is_write:
            yield from value if isinstance(value, tuple | list) else (value,)


def _shown(node: Any) -> Any:
    """What a view shows, of whatever it is a view; writing to intermediate results is harmless."""
    while node.op == "call_function" and (node.target is operator.getitem or _aliases(node)):
        node = node.args[0]
    return node


def _counts_statistics(node: Any) -> bool:
    """Whether a norm in training writes its statistics, of which its schema says nothing."""
    named = getattr(node.target, "__name__", "") in _NORMS
    return named and len(node.args) > 5 and bool(node.args[5]) and node.args[3] is not None


def _aliases(node: Any) -> bool:
    """Whether a node's result shares memory with its first argument."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(a.alias_info for a in schema.arguments[:1])


def draws(target: Any) -> bool:
    """Whether an operator draws numbers; recurrent layers, which are tagged so, do in training."""
    import torch

    tagged = torch.Tag.nondeterministic_seeded in getattr(target, "tags", ())
    return tagged and target.__name__ not in recurrent.CONVERTERS
