"""ONNX Runtime for one region: its session, and its name for each element type."""

import ctypes
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from hybridc.compiler.delegation.host_operators import host_names
from hybridc.compiler.delegation.mixed_session import MixedSession
from hybridc.compiler.errors import ArtifactError, InputError, first_line
from hybridc.compiler.model import Array, Region
from hybridc.compiler.reference import session_options

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
_QUIET = 4  # what goes wrong comes as an exception; nothing is written to the screen
_NOWHERE = "/nonexistent"  # where external data would be looked for: all of it is given in memory


def open_session(region: Region, threads: int) -> Any:
    """Load a region into ONNX Runtime, with its weights where they lie.

    What Python computes of it goes beside.  Raises ArtifactError where ONNX Runtime is missing or
    does not take the region.
    """
    if host_names(region.operators):
        return MixedSession(region, lambda part: _open_whole(part, threads))
    return _open_whole(region, threads)


def _open_whole(region: Region, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        raise ArtifactError(
            "this model has parts that only ONNX Runtime computes, which is not installed: "
            "pip install onnxruntime"
        ) from None
    try:
        return _open(region, threads, onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL)
    except Exception as error:  # its classes are not public
        with suppress(Exception):
            # The optimisation that makes products exact fails where products share weights.
            return _open(region, threads, onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL)
        raise ArtifactError(
            f"ONNX Runtime {onnxruntime.__version__} does not take {region.name}: {first(error)}"
        ) from error


def _open(region: Region, threads: int, level: Any) -> Any:
    """A session whose workers do not spin between calls: the kernels around need the cores."""
    import onnxruntime

    options = session_options()
    options.log_severity_level = _QUIET
    options.graph_optimization_level = level
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    for key in ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning"):
        options.add_session_config_entry(key, "0")
    options.add_session_config_entry(
        "session.model_external_initializers_file_folder_path", _NOWHERE
    )
    if held := {name: ort_value(array) for name, array in region.weights.items()}:
        options.add_external_initializers(list(held), list(held.values()))
    # With its fallback, which is the same provider, it writes failures to stdout.
    return onnxruntime.InferenceSession(
        region.proto, options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def ort_value(array: Array) -> Any:
    """An array's memory as ONNX Runtime's value; the array must outlive it."""
    import onnxruntime

    if array.dtype.isbuiltin:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = array.view(f"uint{8 * array.dtype.itemsize}")
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, ELEMENTS[str(array.dtype)])


def to_array(value: Any) -> Array:
    """A tensor of ONNX Runtime's as numpy and ml_dtypes have it.

    Its bindings have no bfloat16 and float8; such are copied from their address.  Raises InputError
    for elements of other types that numpy lacks.
    """
    try:
        array: Array = value.numpy()
    except RuntimeError as error:
        dtype = _DTYPES.get(value.element_type())
        if dtype is None:
            raise InputError(f"it cannot be given as an array: {first(error)}") from None
        shape = value.shape()
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = ctypes.string_at(value.data_ptr(), size) if size else b""
        array = np.frombuffer(bytearray(memory), dtype).reshape(shape)
    return array


def first(error: Exception) -> str:
    """The first line of what a library says."""
    return first_line(error)[:300]
