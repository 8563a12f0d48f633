"""What a converter of an ONNX operator is given, and how it writes Relax.

A converter takes a `Node` and returns one Relax expression, or a list of one for each output; it
raises `UnsupportedError` for a form that it does not compute exactly, and returns None for one that
it leaves to TVM's own converter, where that is known to be right.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.ir.rewrite import Extent, are_known, constant, is_atom, shape
from hybridc.compiler.model import Array

Expr = Any  # a Relax expression; TVM ships no types
Converted = Expr | list[Expr] | None


class Scope:
    """The operators of `relax.op`, each bound to a variable as it is applied.

    `s.add(x, 1)` adds a constant of x's type: a number or array among the operands takes the type
    of the first tensor.  `s.nn.relu(x)` reaches the operators of a submodule.
    """

    def __init__(self, builder: Any, module: Any = relax.op) -> None:
        self._builder, self._module = builder, module

    @property
    def nn(self) -> "Scope":
        """The operators of `relax.op.nn`."""
        return Scope(self._builder, relax.op.nn)

    @property
    def image(self) -> "Scope":
        """The operators of `relax.op.image`."""
        return Scope(self._builder, relax.op.image)

    @property
    def vision(self) -> "Scope":
        """The operators of `relax.op.vision`."""
        return Scope(self._builder, relax.op.vision)

    def emit(self, value: Expr) -> Expr:
        """Bind an expression; a constant or variable is itself."""
        return value if is_atom(value) else self._builder.emit(value)

    def as_type(self, value: Expr, kind: str) -> Expr:
        """A tensor with elements of this type; the very tensor if it has them."""
        return value if dtype(value) == kind else self.astype(value, kind)

    def te(self, kernel: Callable[..., Any], *operands: Expr) -> Expr:
        """Bind a loop nest, where no operator of Relax computes the same."""
        return self._builder.emit_te(kernel, *operands)

    def loops(
        self, name: str, function: Any, operands: Sequence[Expr], results: Sequence[Any]
    ) -> tuple[Expr, ...]:
        """Call a loop nest; `results` are shape and type of each buffer that it writes."""
        types = [relax.TensorType(list(extents), kind) for extents, kind in results]
        variable = self._builder.add_func(function, name)
        result = self._builder.emit(relax.call_tir(variable, list(operands), types))
        if len(types) == 1:
            return (result,)
        return tuple(self.emit(relax.TupleGetItem(result, index)) for index in range(len(types)))

    def __getattr__(self, name: str) -> Callable[..., Expr]:
        function = getattr(self._module, name)

        def apply(*operands: Any, **options: Any) -> Expr:
            kinds = [dtype(o) for o in operands if isinstance(o, tvm.ir.Expr)]
            # The condition of a `where` says nothing of its branches.
            like = next((kind for kind in kinds if kind != "bool"), kinds[0] if kinds else None)
            arguments = [_operand(operand, like) for operand in operands]
            return self.emit(function(*arguments, **options))

        return apply


def _operand(operand: Any, like: str | None) -> Any:
    """A bare float or array becomes a constant; integers in lists stay shapes and axes."""
    if isinstance(operand, bool | int | float | np.ndarray | np.generic) and like is not None:
        return constant(np.asarray(operand), like)
    return operand


def dtype(value: Expr) -> str:
    """The element type of a tensor."""
    return str(value.ty.dtype)


def number(value: float, like: Expr) -> Expr:
    """A constant scalar of the type of another tensor."""
    return constant(np.array(value), dtype(like))


def is_float(value: Expr) -> bool:
    """Whether a tensor holds floats."""
    return "float" in dtype(value)


def zeros(scope: Scope, extents: Sequence[Extent], kind: str) -> Expr:
    """A tensor of zeros; a constant where its sizes are known."""
    if are_known(extents):
        return constant(np.zeros(tuple(extents)), kind)
    return scope.emit(relax.op.zeros(list(extents), kind))


def counted(scope: Scope, extent: Extent) -> Expr:
    """The numbers from 0 up to an extent; a constant where that is known."""
    if are_known([extent]):
        return constant(np.arange(extent), "int64")
    return scope.emit(relax.op.arange(0, extent, 1, "int64"))


def factor(scope: Scope, extent: Extent) -> Any:
    """An extent as an operand: a number, or a tensor of one int64 where it is open."""
    if are_known([extent]):
        return extent
    return scope.emit(relax.op.shape_to_tensor(relax.ShapeExpr([extent])))


@dataclass(frozen=True)
class Node:
    """An ONNX node: its inputs as Relax, None where one is left out, its attributes as Python.

    `of_torch` tells that the model was exported from torch, to compute as torch does.
    """

    operator: str
    inputs: Sequence[Expr]
    attributes: Mapping[str, Any]
    outputs: int
    opset: int
    scope: Scope
    wanted: tuple[bool, ...] = ()
    of_torch: bool = False

    def input(self, index: int) -> Expr:
        """An input, or None."""
        return self.inputs[index] if len(self.inputs) > index else None

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute; text as `str`, repeated numbers as a list."""
        value = self.attributes.get(name, default)
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        return list(value) if isinstance(value, tuple) else value

    def value(self, index: int, default: Any = None) -> Array | Any:
        """The array that an input is, the default where it is left out.

        Raises UnsupportedError where it is known only as the model runs.
        """
        operand = self.input(index)
        if operand is None:
            return default
        if isinstance(operand, tvm.ir.GenericConst):
            return operand.value.numpy()
        raise UnsupportedError(f"an input {index} that is not constant")

    def ints(self, index: int, default: Any = None) -> list[int] | Any:
        """An input as a list of integers."""
        found = self.value(index)
        return default if found is None else [int(v) for v in np.ravel(found)]

    def shape(self, index: int = 0) -> tuple[int, ...]:
        """The static shape of an input.  Raises UnsupportedError where it has none."""
        return static(self.inputs[index])

    def named(self, output: int) -> bool:
        """Whether the node's output of this number is wanted."""
        return output < self.outputs and (not self.wanted or self.wanted[output])


def static(value: Expr) -> tuple[int, ...]:
    """The static shape of a tensor.  Raises UnsupportedError where it has none."""
    if not isinstance(value.ty, relax.TensorType) or value.ty.shape is None:
        raise UnsupportedError("a shape that depends on the data")
    try:
        return shape(value)
    except (AttributeError, TypeError):
        raise UnsupportedError("a shape that depends on the data") from None


Converter = Callable[[Node], Converted]
