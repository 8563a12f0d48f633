"""ONNX Runtime's values from arrays and back, and its name for each element type."""

import ctypes
import math
from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from hybridc.compiler.errors import InputError, first_line
from hybridc.compiler.model import Array

# Numbers of element types in ONNX's TensorProto.DataType.
ELEMENTS: Mapping[str, int] = {
    "float32": 1,
    "uint8": 2,
    "int8": 3,
    "uint16": 4,
    "int16": 5,
    "int32": 6,
    "int64": 7,
    "bool": 9,
    "float16": 10,
    "float64": 11,
    "uint32": 12,
    "uint64": 13,
    "bfloat16": 16,
    "float8_e4m3fn": 17,
    "float8_e4m3fnuz": 18,
    "float8_e5m2": 19,
    "float8_e5m2fnuz": 20,
    "float8_e8m0fnu": 24,
}
_DTYPES: Mapping[int, str] = {number: name for name, number in ELEMENTS.items()}


def _is_numpys(dtype: np.dtype[Any]) -> bool:
    """Whether an element type is numpy's own, as ONNX Runtime's arrays have them."""
    return bool(dtype.type.__module__ != ml_dtypes.__name__)


_LACKING = frozenset(number for number, name in _DTYPES.items() if not _is_numpys(np.dtype(name)))


def ort_value(array: Array) -> Any:
    """An array's memory as ONNX Runtime's value; the array must outlive it."""
    import onnxruntime

    if _is_numpys(array.dtype):
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = array.view(f"uint{8 * array.dtype.itemsize}")
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, ELEMENTS[str(array.dtype)])


def to_array(value: Any) -> Array:
    """A tensor of ONNX Runtime's as numpy and ml_dtypes have it.

    Its bindings have no bfloat16, and give float8 as bytes; such are copied from their address.
    Raises InputError for elements of other types that numpy lacks.
    """
    dtype = np.dtype(_DTYPES.get(value.element_type(), np.float32))
    if _is_numpys(dtype):
        try:
            array: Array = value.numpy()
        except RuntimeError as error:
            raise InputError(f"it cannot be given as an array: {first(error)}") from None
        return array
    shape = value.shape()
    size = math.prod(shape) * dtype.itemsize
    memory = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(bytearray(memory), dtype).reshape(shape)


def first(error: Exception) -> str:
    """The first line of what a library says."""
    return first_line(error)[:300]


class ValueSession:
    """A session of ONNX Runtime that takes and gives what its arrays lack: bfloat16 and float8."""

    def __init__(self, session: Any) -> None:
        self._session = session

    @staticmethod
    def suits(proto: Any) -> bool:
        """Whether a model has inputs or outputs of such types, and all of them are numbers."""
        values = [*proto.graph.input, *proto.graph.output]
        kinds = {value.type.tensor_type.elem_type for value in values}
        return bool(kinds & _LACKING) and kinds <= _DTYPES.keys()

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """Compute the named outputs (None: all)."""
        given = {name: ort_value(np.asarray(array, order="C")) for name, array in feed.items()}
        return list(map(to_array, self._session.run_with_ort_values(names, given)))
