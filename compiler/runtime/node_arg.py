"""Inputs and outputs as ONNX Runtime describes them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from hybridc.compiler import dims
from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.model import OpaqueSpec, TensorSpec

# How ONNX Runtime spells element types, where it differs from numpy.
_ONNX_NAMES = {"float32": "float", "float64": "double"}


@dataclass(frozen=True)
class NodeArg:
    """An input or output as ONNX Runtime describes it: `x`, `[1, 3, 224, 224]`, `tensor(float)`.

    An open size is given by its name.
    """

    name: str
    shape: Sequence[int | str | None]
    type: str


def node_arg(spec: TensorSpec) -> NodeArg:
    """An input or output of an artifact."""
    if isinstance(spec, OpaqueSpec):
        return NodeArg(spec.name, list(spec.sizes or ()), spec.type)
    spelled = _ONNX_NAMES.get(spec.dtype, spec.dtype)
    sizes = [str(size) if isinstance(size, dims.Dim) else size for size in spec.shape]
    return NodeArg(spec.name, sizes, f"tensor({spelled})")


def wrong_names(specs: Sequence[TensorSpec], feed: Collection[str]) -> InputError:
    """The error for arrays under other names than those of the inputs."""
    names = [spec.name for spec in specs]
    missing = [spec.describe() for spec in specs if spec.name not in feed]
    extra = [f"{name!r} ({hint(str(name), names)})" for name in feed if name not in names]
    faults = [f"missing inputs: {', '.join(missing)}"] if missing else []
    faults += [f"unknown inputs: {', '.join(extra)}"] if extra else []
    return InputError("; ".join(faults))
