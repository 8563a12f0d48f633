"""Formulas on tensors of one type, written as nodes of ONNX."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.writer import Place, Writer

_AXES_ARE_INPUTS = 13  # the opset since when ReduceSum takes them so


class Tape(Writer):
    """Writes formulas on tensors of one type, whose types are known by name.

    `active` are the names that the target depends on, of those that it is derived by.
    """

    def __init__(self, place: Place, types: dict[str, Proto], dtype: str) -> None:
        super().__init__(place)
        self.types, self.dtype = types, dtype
        self.active: set[str] = set()

    def __call__(self, operator: str, *operands: str | float, **attributes: Any) -> str:
        """Apply an operator; returns the name of its result."""
        names = [o if isinstance(o, str) else self.number(o) for o in operands]
        return self.emit(operator, names, **attributes)

    def number(self, value: float) -> str:
        """A constant of the tape's type."""
        return self.constant(np.array(value, self.dtype))

    def shape(self, name: str) -> tuple[int, ...]:
        """The sizes of a tensor.  Raises ModelError where they are not known."""
        kind = self.types.get(name)
        dims = kind.tensor_type.shape.dim if kind is not None else ()
        if kind is None or not all(dim.HasField("dim_value") for dim in dims):
            raise ModelError(f"a gradient needs the sizes of {name!r}; give them with --shape")
        return tuple(dim.dim_value for dim in dims)

    def full(self, like: str, value: float) -> str:
        """A constant of the shape of a tensor."""
        import onnx

        shape = self.constant(np.array(self.shape(like), np.int64))
        one = onnx.numpy_helper.from_array(np.array([value], self.dtype))
        return self.emit("ConstantOfShape", [shape], value=one)

    def reshaped(self, x: str, shape: Sequence[int]) -> str:
        """The same elements in another shape."""
        return self("Reshape", x, self.constant(np.array(shape, np.int64)))

    def summed(self, x: str, axes: Sequence[int]) -> str:
        """Sums along axes, which stay with the size 1."""
        if self.opset >= _AXES_ARE_INPUTS:
            return self("ReduceSum", x, self.constant(np.array(axes, np.int64)), keepdims=1)
        return self("ReduceSum", x, axes=list(axes), keepdims=1)

    def fitted(self, x: str, shape: Sequence[int], wanted: Sequence[int]) -> str:
        """A gradient of this shape as one of an operand that was broadcast to it from `wanted`."""
        lead = len(shape) - len(wanted)
        axes = [*range(lead)]
        axes += [lead + i for i, size in enumerate(wanted) if size == 1 != shape[lead + i]]
        summed = self.summed(x, axes) if axes else x
        return self.reshaped(summed, wanted) if lead else summed
