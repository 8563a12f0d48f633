"""Weights as safetensors, laid out so that every tensor can be used where the file is mapped.

The format (https://github.com/huggingface/safetensors) allows no gap between tensors, so a gap is
a tensor of its own, `__pad.N`, of bytes that are zero.  Any safetensors reader reads the file.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from hybridc.compiler.artifacts.archive import ALIGNMENT
from hybridc.compiler.errors import ArtifactError, hint
from hybridc.compiler.model import Array

_PAD = "__pad."
_METADATA = "__metadata__"
_SIZE = struct.Struct("<Q")
_HEADER_LIMIT = 100_000_000  # bytes; the limit of the safetensors library
_DIMENSIONS = 32  # more than any model has, and numpy takes as many

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}


def encode(weights: Mapping[str, Array]) -> list[bytes | memoryview]:
    """Lay out the weights in their order; the chunks joined are a safetensors file.

    Raises ArtifactError where a dtype has no name in safetensors, or a weight's name is taken.
    """
    header: dict[str, Any] = {}
    chunks: list[bytes | memoryview] = []
    position = 0
    for name, array in weights.items():
        if name.startswith(_PAD) or name == _METADATA:
            raise ArtifactError(f"a weight cannot be named {name!r}: the format needs the name")
        if array.dtype not in _CODES:
            known = hint(str(array.dtype), map(str, _CODES))
            raise ArtifactError(f"weight {name!r} has dtype {array.dtype}, not storable; {known}")
        if gap := -position % ALIGNMENT:
            header[f"{_PAD}{len(chunks)}"] = _entry("U8", (gap,), position, gap)
            chunks.append(bytes(gap))
            position += gap
        header[name] = _entry(_CODES[array.dtype], array.shape, position, array.nbytes)
        chunks.append(_bytes_of(array))
        position += array.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(_SIZE.size + len(text)) % ALIGNMENT)
    return [_SIZE.pack(len(text)) + text, *chunks]


def decode(content: memoryview) -> dict[str, Array]:
    """Read what `encode` wrote: arrays on the given memory, in order; nothing is copied.

    Raises ArtifactError where the content breaks the format or a tensor is not aligned.
    """
    header, data = _split(content)
    weights: dict[str, Array] = {}
    position = 0
    for name, entry in header.items():
        dtype, shape, start, end = _read_entry(name, entry)
        if start != position or end > len(data):
            raise ArtifactError(f"weights: {name!r} leaves a gap, overlaps or is cut off")
        position = end
        if not name.startswith(_PAD):
            weights[name] = _array(name, data[start:end], dtype, shape)
            if start % ALIGNMENT:
                raise ArtifactError(f"weights: {name!r} is not aligned to {ALIGNMENT} bytes")
    if position != len(data):
        raise ArtifactError(f"weights: {len(data) - position} bytes belong to no tensor")
    return weights


def _split(content: memoryview) -> tuple[dict[str, Any], memoryview]:
    if len(content) < _SIZE.size:
        raise ArtifactError("weights: the header is missing")
    (size,) = _SIZE.unpack(content[: _SIZE.size])
    if size > min(_HEADER_LIMIT, len(content) - _SIZE.size):
        raise ArtifactError(f"weights: a header of {size} bytes is impossibly long")
    data = _SIZE.size + size
    try:
        header = json.loads(bytes(content[_SIZE.size : data]), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"weights: the header is not valid JSON: {error}") from None
    if not isinstance(header, dict):
        raise ArtifactError("weights: the header is not a JSON object")
    header.pop(_METADATA, None)
    return header, content[data:]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name occurs twice")
    return found


def _read_entry(name: str, entry: object) -> tuple[np.dtype[Any], tuple[int, ...], int, int]:
    """The dtype, shape, begin and end of a tensor, which fit each other."""
    match entry:
        case {"dtype": str(code)} if code not in DTYPES:
            raise ArtifactError(f"weights: {name!r} has dtype {code}; {hint(code, DTYPES)}")
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [start, end]} if _fits(
            DTYPES[code], shape, start, end
        ):
            return DTYPES[code], tuple(shape), start, end
        case _:
            raise ArtifactError(f"weights: the entry of {name!r} is malformed")


def _fits(dtype: np.dtype[Any], shape: list[Any], start: Any, end: Any) -> bool:
    plain = all(type(count) is int and count >= 0 for count in (start, end, *shape))
    return plain and len(shape) <= _DIMENSIONS and end - start == math.prod(shape) * dtype.itemsize


def _array(name: str, data: memoryview, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Array:
    try:
        return np.frombuffer(data, np.uint8).view(dtype).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise ArtifactError(f"weights: {name!r} has an impossible shape: {error}") from None


def _entry(code: str, shape: tuple[int, ...], start: int, size: int) -> dict[str, Any]:
    return {"dtype": code, "shape": list(shape), "data_offsets": [start, start + size]}


def _bytes_of(array: Array) -> memoryview:
    """The array's bytes in row-major order, copied only where they do not lie so."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
