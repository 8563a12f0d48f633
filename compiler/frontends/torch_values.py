"""What torch says of the values of an exported program, and how models hold them."""

from typing import Any

from hybridc.compiler.model import TensorSpec


def values_of(exported: Any) -> dict[str, Any]:
    """What torch knows of each value by name: a tensor without data, most often."""
    return {node.name: node.meta.get("val") for node in exported.graph.nodes}


def spec_of(name: str, value: Any) -> TensorSpec:
    """A tensor of torch's; complex numbers are pairs of real ones in a last axis, as in ONNX."""
    pair, part = ((2,), value.real) if value.is_complex() else ((), value)
    return TensorSpec(name, (*value.shape, *pair), str(part.dtype).removeprefix("torch."))


def of_pairs(tensor: Any, value: Any) -> Any:
    """A tensor of pairs as the complex one that it stands for, of which torch says `value`."""
    import torch

    return torch.view_as_complex(tensor) if value.is_complex() else tensor
