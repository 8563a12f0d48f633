"""Formulas on tensors whose types are known, written as nodes of ONNX in the place of one."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.writer import Writer, scratch
from hybridc.compiler.model import Array

_SUM_AXES, _MEAN_AXES = 13, 18  # the opsets since when axes of these are inputs
# The constants of a model by name, and its weights, which are too large for the graph.
Known = tuple[Mapping[str, Proto], Mapping[str, Array]]
_NONE: Known = (MappingProxyType({}), MappingProxyType({}))


class UnwrittenError(Exception):
    """A form of an operator that is not written with others."""


class Formulas(Writer):
    """Writes formulas; bare numbers among operands have the type of the node's floats."""

    def __init__(
        self,
        node: Proto,
        types: Mapping[str, Proto],
        opset: int,
        known: Known = _NONE,
        makers: Mapping[str, Proto] = MappingProxyType({}),
    ) -> None:
        super().__init__(scratch(node, opset))
        self.types, self.makers = types, makers
        self.constants, self.weights = known
        kinds = (self.dtype(name) for name in node.input)
        self.number_type = next((kind for kind in kinds if "float" in kind), "float32")

    def __call__(self, operator: str, *operands: str | float, **attributes: Any) -> str:
        """Apply an operator; returns the name of its result."""
        names = [
            o if isinstance(o, str) else self.constant(np.array(o, self.number_type))
            for o in operands
        ]
        return self.emit(operator, names, **attributes)

    def ints(self, *values: int) -> str:
        """A constant list of integers."""
        return self.constant(np.array(values, np.int64))

    def named(self, value: str, output: int = 0) -> None:
        """Give a value the name of an output of the node, if that is wanted."""
        if len(self.node.output) > output and self.node.output[output]:
            self.emit("Identity", [value], self.node.output[output])

    def wants(self, *outputs: int) -> bool:
        """Whether one of these outputs of the node has a name."""
        return any(len(self.node.output) > i and self.node.output[i] for i in outputs)

    def refuse(self, *unknown: Any) -> None:
        """Raise UnwrittenError where one of these is true."""
        if any(unknown):
            raise UnwrittenError

    def dims(self, name: str) -> list[int | str]:
        """The sizes of a tensor, names where they are open.  Raises UnwrittenError without any."""
        kind = self.types.get(name)
        if kind is None or not kind.tensor_type.HasField("shape"):
            raise UnwrittenError
        return [
            dim.dim_value if dim.HasField("dim_value") else str(dim.dim_param)
            for dim in kind.tensor_type.shape.dim
        ]

    def fixed(self, name: str, axis: int) -> int:
        """A size that is known.  Raises UnwrittenError where it is open."""
        size = self.dims(name)[axis]
        if not isinstance(size, int):
            raise UnwrittenError
        return size

    def value(self, name: str) -> Array:
        """The value of a constant.  Raises UnwrittenError for another tensor."""
        import onnx

        if name in self.weights:
            return self.weights[name]
        if name not in self.constants:
            raise UnwrittenError
        made: Array = onnx.numpy_helper.to_array(self.constants[name])
        return made

    def is_of_sizes(self, name: str) -> bool:
        """Whether a value follows from constants and the sizes of tensors, and not from data."""
        if name in self.constants:
            return True
        node = self.makers.get(name)
        if node is None:
            return False
        return node.op_type in ("Shape", "Size") or all(map(self.is_of_sizes, node.input))

    def dtype(self, name: str) -> str:
        """The element type of a tensor, "" where it is not known."""
        import onnx

        kind = self.types.get(name) if name else None
        number = kind.tensor_type.elem_type if kind is not None else 0
        return str(onnx.helper.tensor_dtype_to_np_dtype(number)) if number else ""

    def widened(self, value: str) -> str:
        """A tensor of the node's floats in float32."""
        return value if self.number_type == "float32" else self.cast(value, "float32")

    def narrowed(self, value: str) -> str:
        """A tensor of float32 in the type of the node's floats."""
        return value if self.number_type == "float32" else self.cast(value, self.number_type)

    def cast(self, value: str, kind: str) -> str:
        """A tensor with elements of another type."""
        import onnx

        return self.emit("Cast", [value], to=onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind)))

    def size(self, value: str, axis: int) -> str:
        """One size of a tensor, as a number."""
        return self("Gather", self("Shape", value), self.constant(np.array(axis, np.int64)), axis=0)

    def counted(self, size: str) -> str:
        """The numbers from 0 up to a size."""
        start, step = (self.constant(np.array(n, np.int64)) for n in (0, 1))
        return self("Range", start, size, step)

    def reshaped(self, value: str, *shape: int) -> str:
        """The same elements in another shape; 0 keeps a size, -1 stands for the rest."""
        return self("Reshape", value, self.ints(*shape))

    def expanded(self, value: str, *axes: int) -> str:
        """A tensor with further axes of size 1."""
        if self.opset >= _SUM_AXES:
            return self("Unsqueeze", value, self.ints(*axes))
        return self("Unsqueeze", value, axes=list(axes))

    def summed(self, value: str, axis: int) -> str:
        """Sums along an axis, which goes."""
        if self.opset >= _SUM_AXES:
            return self("ReduceSum", value, self.ints(axis), keepdims=0)
        return self("ReduceSum", value, axes=[axis], keepdims=0)

    def averaged(self, value: str) -> str:
        """Means along the last axis, which stays."""
        if self.opset >= _MEAN_AXES:
            return self("ReduceMean", value, self.ints(-1), keepdims=1)
        return self("ReduceMean", value, axes=[-1], keepdims=1)

    def split(self, value: str, sizes: Sequence[int], axis: int = -1) -> list[str]:
        """Parts of these sizes along an axis."""
        import onnx

        names = [f"{self.prefix}/{len(self.nodes)}/{i}" for i in range(len(sizes))]
        newer = self.opset >= _SUM_AXES
        inputs = [value, self.ints(*sizes)] if newer else [value]
        options: dict[str, Any] = {} if newer else {"split": list(sizes)}
        self.nodes.append(onnx.helper.make_node("Split", inputs, names, axis=axis, **options))
        return names
