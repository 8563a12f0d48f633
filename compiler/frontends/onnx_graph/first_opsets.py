"""Operators of the first opsets, which ONNX's reference lacks or computes as later ones mean."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.writer import domain_of, opset_of

# The opset since which the shapes of operands tell how they are aligned, as in numpy; before, an
# axis tells where those of the second begin.
ALIGNED_BY_RULE = 7


def _quotient(x: Any, y: Any) -> Any:
    """Of integers, what is left after rounding towards zero."""
    return np.divide(x, y) if x.dtype.kind == "f" else np.trunc(np.divide(x, y))


_FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "Add": np.add,
        "And": np.logical_and,
        "Div": _quotient,
        "Equal": np.equal,
        "Greater": np.greater,
        "Less": np.less,
        "Mul": np.multiply,
        "Or": np.logical_or,
        "Pow": np.power,
        "Sub": np.subtract,
        "Xor": np.logical_xor,
    }
)
ALIGNED = frozenset(_FUNCTIONS)


def reference_operators(proto: Proto) -> list[Any]:
    """Those that ONNX's reference is to compute so in a model."""
    import onnx

    if not any(domain_of(listed) == "" for listed in proto.opset_import):
        return []
    opset = opset_of(proto)
    return [
        _operator(onnx.defs.get_schema(name, opset, ""), function)
        for name, (since, function) in _COMPUTED.items()
        if opset < since
    ]


def _operator(schema: Any, function: Callable[..., Any]) -> Any:
    """A class of ONNX's reference, found by its name, with one result."""
    from onnx.reference.op_run import OpRun

    def run(_: Any, *inputs: Any, **attributes: Any) -> tuple[Any]:
        return (function(*inputs, **attributes),)

    members = {"op_domain": "", "op_schema": schema, "_run": run}
    return type(schema.name, (OpRun,), members)


def _aligned(function: Callable[..., Any]) -> Callable[..., Any]:
    def compute(x: Any, y: Any, axis: Any = None, broadcast: Any = 0, **_: Any) -> Any:
        if broadcast and axis is not None and y.ndim:
            y = y.reshape(y.shape + (1,) * (x.ndim - axis % x.ndim - y.ndim))
        result = np.asarray(function(x, y))
        return result if result.dtype == bool else result.astype(x.dtype)

    return compute


def _joined(*parts: Any, axis: Any = None) -> Any:
    return np.concatenate(parts, 1 if axis is None else axis)


def _repeated(x: Any, times: Any, axis: Any) -> Any:
    repeats = [1] * x.ndim
    repeats[int(np.ravel(axis)[0])] = int(np.ravel(times)[0])
    return np.tile(x, repeats)


def _reshaped(x: Any, shape: Any = (), **_: Any) -> Any:
    kept = zip(shape, (*x.shape, *[0] * len(shape)), strict=False)
    return x.reshape([old if size == 0 else size for size, old in kept])


def _cast(x: Any, to: Any = None) -> Any:
    import onnx

    number: Any = onnx.TensorProto.DataType.Value(to)
    return np.asarray(x).astype(onnx.helper.tensor_dtype_to_np_dtype(number))


# Each with the opset since which ONNX's reference has it as it is.
_COMPUTED: Mapping[str, tuple[int, Callable[..., Any]]] = MappingProxyType(
    {
        **{name: (ALIGNED_BY_RULE, _aligned(function)) for name, function in _FUNCTIONS.items()},
        "Cast": (6, _cast),
        "Concat": (4, _joined),
        "Reshape": (5, _reshaped),
        "Tile": (6, _repeated),
    }
)
