"""ONNX's own reference in float64: the judge where an answer and a stored output differ.

Stored outputs were computed in the types of the case.  Where sums cancel, or half precision is
rounded at each step, they are off by more than the case's tolerance themselves.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridc.compiler.conformance.comparison import Tolerance
from hybridc.compiler.model import Array

Proto = Any  # a message of onnx; the library ships no types for them


def nearer(
    model: Proto,
    inputs: Sequence[Any],
    got: Sequence[Any],
    stored: Sequence[Any],
    tolerance: Tolerance,
) -> bool:
    """Whether an answer is right though it differs from the stored one.

    That is so where it is within the tolerance of what float64 gives, and no element that differs
    from the stored one is farther from it than that.
    """
    try:
        exact = outputs(model, inputs)
    except Exception:  # the reference lacks operators and types, and raises anything
        return False
    if len(exact) != len(got):
        return False
    return all(map(_nearer, got, stored, exact, [tolerance] * len(got)))


def outputs(model: Proto, inputs: Sequence[Any]) -> list[Any]:
    """The outputs of a model in which all floats are float64."""
    from onnx.reference import ReferenceEvaluator

    wide = _widened(model)
    names = [value.name for value in wide.graph.input]
    feed = dict(zip(names, map(_wide, inputs), strict=False))
    return list(ReferenceEvaluator(wide).run(None, feed))


def _nearer(got: Any, stored: Any, exact: Any, tolerance: Tolerance) -> bool:
    arrays = got, stored, exact
    if not all(isinstance(array, np.ndarray) and array.dtype.kind == "f" for array in arrays):
        return bool(np.array_equal(got, stored)) if isinstance(got, np.ndarray) else got == stored
    if not got.shape == stored.shape == exact.shape:
        return False
    ours, theirs, true = (array.astype(np.float64) for array in arrays)
    same, right = tolerance.holds(ours, theirs), tolerance.holds(ours, true)
    return bool((same | (right & (np.abs(ours - true) <= np.abs(theirs - true)))).all())


def _widened(model: Proto) -> Proto:
    """A copy in which inputs, constants and casts of narrower floats are of float64."""
    import onnx

    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    graph, narrow = wide.graph, _narrow()
    for value in [*graph.input, *graph.output]:
        if value.type.tensor_type.elem_type in narrow:
            value.type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    for tensor in graph.initializer:
        _widen(tensor)
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.HasField("t"):
            _widen(attribute.t)
        elif attribute.name in ("to", "dtype") and attribute.i in narrow:
            attribute.i = onnx.TensorProto.DOUBLE
    del graph.value_info[:]
    return wide


def _narrow() -> frozenset[int]:
    import onnx

    kinds = onnx.TensorProto
    return frozenset({kinds.FLOAT, kinds.FLOAT16, kinds.BFLOAT16})


def _widen(tensor: Proto) -> None:
    """Change a tensor of narrower floats in place."""
    import onnx

    if tensor.data_type in _narrow():
        wide = _wide(onnx.numpy_helper.to_array(tensor))
        tensor.CopyFrom(onnx.numpy_helper.from_array(wide, tensor.name))


def _wide(value: Any) -> Array | Any:
    floats = isinstance(value, np.ndarray) and value.dtype.kind in "fV"
    return value.astype(np.float64) if floats else value
