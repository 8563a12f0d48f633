"""Tensors of an ONNX model that lie in files beside it, which nobody vouches for either."""

import math
import os
import stat
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler.errors import ModelError
from hybridc.compiler.model import Array

Proto = Any  # a message of onnx; the library ships no types for them

_SUB_BYTE = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


@dataclass(frozen=True)
class ExternalData:
    """A range of a file below the model's directory, which was there when it was looked for.

    `size` is in bytes; `dtype` is None where the bytes are not the elements of an array as they
    are: several elements in a byte, or truth values.
    """

    path: Path
    offset: int
    size: int
    dtype: np.dtype[Any] | None
    where: str

    def array(self, shape: tuple[int, ...]) -> Array:
        """The tensor, read into memory of its own."""
        if self.dtype is None:
            raise ValueError(f"{self.where}: its bytes are not elements")
        from hybridc.compiler.runtime import tensors  # here, since a glance does without TVM

        try:
            array = tensors.empty(shape, self.dtype)
        except MemoryError:  # a file with holes may be as long as it likes
            told = f"{self.where}: there is no memory for {self.size} bytes of external data"
            raise ModelError(told) from None
        with self.opened() as file:
            # As bytes: arrays of bfloat16 and the like lend no buffer.
            if file.readinto(array.reshape(-1).view(np.uint8).data) != self.size:
                raise ModelError(f"{self.where}: external data {self.path.name} became shorter")
        return array

    def embed(self, tensor: Proto) -> None:
        """Move the bytes into the tensor."""
        import onnx

        with self.opened() as file:
            tensor.raw_data = file.read(self.size)
        tensor.ClearField("external_data")
        tensor.data_location = onnx.TensorProto.DEFAULT

    @contextmanager
    def opened(self) -> Generator[BufferedReader]:
        """The file, checked, at the tensor's first byte."""
        try:
            # The path is resolved, so a link found here was put there after the check.
            handle = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            told = f"{self.where}: external data {self.path.name}: {error.strerror}"
            raise ModelError(told) from None
        try:
            self._check(os.fstat(handle))
            with os.fdopen(handle, "rb", closefd=False) as file:
                file.seek(self.offset)
                yield file
        finally:
            os.close(handle)

    def _check(self, status: os.stat_result) -> None:
        name, needed = self.path.name, self.offset + self.size
        # A second name of the same file could be a secret from elsewhere on the disk.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ModelError(f"{self.where}: external data {name} must be a file with no hard link")
        if needed > status.st_size:
            held = f"{self.where}: external data {name} has {status.st_size} bytes"
            raise ModelError(f"{held}, {needed} are needed")


def find(tensor: Proto, model: Path | None) -> ExternalData:
    """Where a tensor's bytes are, after every check.

    Raises ModelError where they are no range of a regular file inside the model's own directory,
    or do not fit the tensor's shape.
    """
    where = f"tensor {tensor.name!r}"
    if model is None:
        raise ModelError(f"{where} is in another file; give the model's path, not its proto")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    dtype, size = _extent(tensor, where)
    if not entries.get("length", str(size)).isdigit() or not entries.get("offset", "0").isdigit():
        raise ModelError(f"{where}: external offset and length must be numbers")
    if (length := int(entries.get("length", size))) != size:
        raise ModelError(f"{where}: its shape takes {size} bytes, its external data has {length}")
    path = _contained(entries.get("location", ""), model, where)
    data = ExternalData(path, int(entries.get("offset", 0)), size, dtype, where)
    with data.opened():
        return data


def _extent(tensor: Proto, where: str) -> tuple[np.dtype[Any] | None, int]:
    """The type of a tensor's elements, None where bytes are no elements, and its size in bytes."""
    import onnx

    kind = tensor.data_type
    if kind in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        raise ModelError(f"{where}: external data must be numbers")
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"{where}: a dimension is negative")
    try:
        name = onnx.TensorProto.DataType.Name(kind)
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
    except (KeyError, ValueError):
        raise ModelError(f"{where}: unknown data type {kind}") from None
    bits = _SUB_BYTE.get(name, 8 * dtype.itemsize)
    plain = name not in _SUB_BYTE and dtype != np.bool_
    return dtype if plain else None, int(-(-math.prod(tensor.dims) * bits // 8))


def _contained(location: str, model: Path, where: str) -> Path:
    """The real path of `location`, which must lie below the model's directory.

    Where the model's path is a link, as in the cache of a model hub, its data may be links into the
    directory that the model itself is really in.
    """
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise ModelError(f"{where}: external data {location!r} is not below the model's directory")
    root = os.path.realpath(model.parent)
    path = os.path.realpath(os.path.join(root, location))
    roots = (root, os.path.dirname(os.path.realpath(model)))
    if not any(os.path.commonpath([each, path]) == each for each in roots):
        raise ModelError(f"{where}: external data {location!r} links out of the model's directory")
    return Path(path)
