"""Functions of one byte as tables of 256, where they stand between two quantised tensors.

A byte has so few values that all of them are computed now, in float32 as the operators would.
"""

from collections.abc import Callable, Mapping, Sequence
from math import erf
from types import MappingProxyType
from typing import Any

import numpy as np
from tvm import relax

from hybridc.compiler.ir.rewrite import Expr, Graph, constant, operator, shape
from hybridc.compiler.model import Array
from hybridc.passes import _quantization

op: Any = relax.op

_VALUES = 256
_HALF_PI = np.sqrt(2 / np.pi)
# Operators on the way from a byte to another, at most.
_MOST = 32


def _erf(x: Array) -> Array:
    found: Array = np.vectorize(erf, otypes=[np.float64])(x)
    return found


def _sigmoid(x: Array) -> Any:
    return 1 / (1 + np.exp(-x))


def _gelu_tanh(x: Array) -> Any:
    return x / 2 * (1 + np.tanh(_HALF_PI * (x + 0.044715 * x**3)))


# Those that take a vector many instructions.  Computed in float64 and rounded once.
_COSTLY: Mapping[str, Callable[[Array], Any]] = MappingProxyType(
    {
        "erf": _erf,
        "exp": np.exp,
        "nn.gelu": lambda x: x / 2 * (1 + _erf(x / np.sqrt(2.0))),
        "nn.gelu_tanh": _gelu_tanh,
        "nn.silu": lambda x: x * _sigmoid(x),
        "sigmoid": _sigmoid,
        "tanh": np.tanh,
    }
)
_CHEAP: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "add": np.add,
        "divide": np.divide,
        "maximum": np.maximum,
        "minimum": np.minimum,
        "multiply": np.multiply,
        "negative": np.negative,
        "nn.relu": lambda x: np.maximum(x, 0),
        "power": np.power,
        "subtract": np.subtract,
    }
)


def lookup(value: Expr, graph: Graph) -> Expr | None:
    """A quantised tensor as looked up by another, where functions that cost much lie between."""
    walk = _Walk(graph)
    table = walk.value(value)
    if table is None or walk.source is None or not walk.costly:
        return None
    if shape(walk.source) != shape(value):
        return None
    return op.take(constant(table, "uint8"), walk.source, axis=0, mode="clip")


class _Walk:
    """Computes what stands before a value, for all values of the one byte tensor it is made of."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.source: Expr | None = None
        self.costly = False
        self._known: dict[Expr, Array | None] = {}

    def value(self, expr: Expr) -> Array | None:
        """The 256 values, or the one of a constant; None if there is another operator."""
        if (array := self.graph.constant(expr)) is not None:
            return array.reshape(()) if array.size == 1 else None
        call = self.graph.value(expr)
        if call not in self._known:
            if len(self._known) >= _MOST:
                return None
            self._known[call] = self._computed(call)
        return self._known[call]

    def _computed(self, call: Expr) -> Array | None:
        name = operator(call)
        if name == "quantize":
            return self._quantized(call)
        if name == "dequantize":
            return self._dequantized(call)
        if name in _COSTLY:
            self.costly = True
            return self._applied(_COSTLY[name], call.args, "float64")
        return self._applied(_CHEAP[name], call.args, "float32") if name in _CHEAP else None

    def _applied(
        self, function: Callable[..., Any], operands: Sequence[Expr], dtype: str
    ) -> Array | None:
        arrays = [self.value(operand) for operand in operands]
        if any(array is None for array in arrays):
            return None
        with np.errstate(all="ignore"):
            result = function(*(np.asarray(array, dtype) for array in arrays))
        return np.asarray(result, "float32")

    def _byte(self, expr: Expr) -> Array | None:
        """Bytes: those of a table or of what is quantised on the way, else the source."""
        call = self.graph.value(expr)
        if (table := _table(call, self.graph)) is not None:
            index = self._byte(call.args[1])
            return None if index is None else table[index]
        if operator(call) == "quantize":
            before, costly, source = dict(self._known), self.costly, self.source
            found = self.value(call)
            if found is not None and found.size == _VALUES:
                return found
            self._known, self.costly, self.source = before, costly, source
        if self.source is not None and not self.source.same_as(expr):
            return None
        self.source = expr
        return np.arange(_VALUES).astype("uint8")

    def _parameters(self, call: Expr) -> tuple[float, int] | None:
        tensor = _quantization.parameters(call)
        scale, zero = (_quantization.scalar(e, self.graph) for e in (tensor.scale, tensor.zero))
        return None if scale is None or zero is None else (scale, int(zero))

    def _quantized(self, call: Expr) -> Array | None:
        known, data = self._parameters(call), self.value(call.args[0])
        if known is None or data is None or str(call.attrs.out_dtype) != "uint8":
            return None
        scale, zero = known
        steps = np.rint(data.astype("float32") / np.float32(scale)) + zero
        table: Array = np.clip(np.nan_to_num(steps), 0, _VALUES - 1).astype("uint8")
        return table

    def _dequantized(self, call: Expr) -> Array | None:
        known, tensor = self._parameters(call), _quantization.parameters(call)
        if known is None or (tensor.stored, tensor.dtype) != ("uint8", "float32"):
            return None
        data = self._byte(tensor.data)
        if data is None:
            return None
        scale, zero = known
        value: Array = (data.astype("float32") - zero) * np.float32(scale)
        return value


def _table(call: Expr, graph: Graph) -> Array | None:
    """The table that `lookup` made, where a call looks it up."""
    if operator(call) != "take" or str(call.args[1].ty.dtype) != "uint8":
        return None
    table = graph.constant(call.args[0])
    return table if table is not None and table.shape == (_VALUES,) else None
