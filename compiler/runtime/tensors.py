"""Arrays into and out of TVM's runtime, with no copy wherever the memory allows it.

Kernels assume rows without gaps that begin on some boundary; numpy's arrays often lie elsewhere.
numpy's DLPack knows no bfloat16 or float8, so such arrays cross as bytes and are named anew.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import ml_dtypes
import numpy as np
import tvm_ffi
from tvm import runtime

from hybridc.compiler import dims
from hybridc.compiler.errors import InputError
from hybridc.compiler.model import Array, TensorSpec
from hybridc.compiler.runtime import carriers

# What interrupts a Python function that TVM calls comes back as that, not as a RuntimeError.
tvm_ffi.register_error("KeyboardInterrupt", KeyboardInterrupt)

ALIGNMENT = 64  # bytes
# Bytes of an input that is copied sooner than it is handed over: of a tensor on numpy's memory the
# making and the freeing take 1.9 us, of 2 KiB the copy 0.4 (Zen 3).
SMALL = 2**11
Tensor = Any  # tvm.runtime.Tensor; TVM ships no types
Reader = Callable[[Tensor], Array]


def to_numpy(tensor: Tensor, dtype: np.dtype[Any]) -> Array:
    """A numpy array on the tensor's memory, which it keeps alive; a copy of what was carried."""
    if in_dlpack(dtype):
        return np.from_dlpack(tensor)
    if (held := _held(dtype)) != dtype:
        return to_numpy(tensor, held).astype(dtype)
    size = dtype.itemsize * math.prod(tensor.shape)
    return np.from_dlpack(tensor._create_view((size,), "uint8")).view(dtype).reshape(tensor.shape)


def view(tensor: Tensor) -> Array:
    """A numpy array on the memory of a tensor, of the tensor's own type."""
    return to_numpy(tensor, np.dtype(str(tensor.dtype)))


def reader(dtype: np.dtype[Any]) -> Reader:
    """What makes of tensors of one dtype numpy arrays on their memory."""
    return np.from_dlpack if in_dlpack(dtype) else lambda tensor: to_numpy(tensor, dtype)


def to_tensor(array: Array) -> Tensor:
    """A TVM tensor on the array's memory, or on a copy where that is not aligned or read-only.

    Elements of less than a byte are those of their carrier.
    """
    array = carriers.carried(array)
    if array.size == 0:
        return runtime.empty(array.shape, str(array.dtype))
    if not (_is_aligned(array) and array.flags.c_contiguous and array.flags.writeable):
        aligned = empty(array.shape, array.dtype)
        np.copyto(aligned, array)
        array = aligned
    if in_dlpack(array.dtype):
        return runtime.from_dlpack(array)
    content = runtime.from_dlpack(array.reshape(-1).view(np.uint8))
    return content._create_view(array.shape, str(array.dtype))


def empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An uninitialised array that begins on an aligned address."""
    return placed(np.empty(dtype.itemsize * math.prod(shape) + ALIGNMENT, np.uint8), shape, dtype)


def placed(memory: Array, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """An array on the first aligned address of a memory of bytes."""
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + dtype.itemsize * math.prod(shape)].view(dtype).reshape(shape)


def address(array: Array) -> int:
    """Where an array's memory begins."""
    return int(array.__array_interface__["data"][0])


@dataclass(frozen=True)
class InputPort:
    """Checks what is given for one input and hands it to TVM.

    What kernels cannot read where it lies is copied into `_stage`, which each call overwrites, so
    a port serves one call at a time.  `alignment` is what the kernels ask for, in bytes.
    """

    spec: TensorSpec
    alignment: int = ALIGNMENT

    @cached_property
    def dtype(self) -> np.dtype[Any]:
        """The input's dtype as numpy has it."""
        return np.dtype(self.spec.dtype)

    @cached_property
    def _direct(self) -> bool:
        """Whether an array of this kind may cross without a copy."""
        sizes = [size for size in self.spec.shape if isinstance(size, int)]
        return in_dlpack(self.dtype) and math.prod(sizes) > 0

    @cached_property
    def _stage(self) -> tuple[Array, Tensor]:
        array = empty(self.spec.fixed, _held(self.dtype))
        return array, to_tensor(array)

    def _fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a tensor of this shape is such an input."""
        return shape == self.spec.shape

    def bind(self, value: object) -> Tensor:
        """Take a numpy array or scalar.  Raises InputError if it is no such input."""
        array = self.checked(value)
        return self._copied(array) if array.nbytes <= SMALL else self._taken(array)

    def checked(self, value: object) -> Array:
        """An array or numpy scalar that is such an input.  Raises InputError if it is none."""
        array = value if isinstance(value, np.ndarray) else self._scalar(value)
        if array.dtype != self.dtype or not self._fits(array.shape):
            raise self._refusal(str(array.dtype), array.shape)
        return array

    def _taken(self, array: Array) -> Tensor:
        """A tensor on the array's memory, where that is as kernels want it; else on a copy."""
        # numpy hands over no read-only memory, and no gaps of half an element (fields of records).
        if self._direct and array.flags.writeable and array.flags.c_contiguous:
            tensor = tvm_ffi.from_dlpack(array)
            if self._usable(tensor):
                return tensor
        return self._copied(array)

    def bind_dlpack(self, value: Any, device: Any = "cpu:0") -> Tensor:
        """Take a tensor of any library that speaks DLPack, on the CPU or on `device`.

        Errors as for `bind`.
        """
        if isinstance(value, np.ndarray):
            return self._taken(self.checked(value))
        try:
            tensor = tvm_ffi.from_dlpack(_plain(value))
            kind = str(tensor.dtype)  # which has no name for complex numbers
        except (TypeError, ValueError, BufferError, RuntimeError) as error:
            first = str(error).split("\n", 1)[0]
            raise InputError(f"input {self.spec.name!r} is not a DLPack tensor: {first}") from None
        there = str(tensor.device)
        if there not in ("cpu:0", str(device)):
            raise InputError(
                f"input {self.spec.name!r} must be on the CPU, but is on {tensor.device}"
            )
        if not self._fits(tuple(tensor.shape)) or kind != self.spec.dtype:
            raise self._refusal(kind, tuple(tensor.shape))
        if self._usable(tensor):
            return tensor
        if there != "cpu:0":
            raise InputError(
                f"input {self.spec.name!r} on {there} must have no gaps and begin at a multiple"
                f" of {self.alignment} bytes"
            )
        return self._copied(_Exposed.view(tensor, self.dtype))

    def _scalar(self, value: object) -> Array:
        if isinstance(value, np.generic):
            return np.asarray(value)
        raise InputError(
            f"input {self.spec.name!r} must be a numpy array, got {type(value).__name__}"
        )

    def _usable(self, tensor: Tensor) -> bool:
        return tensor.data_ptr() % self.alignment == 0 and bool(tensor.is_contiguous())

    def _copied(self, array: Array) -> Tensor:
        stage, tensor = self._stage
        np.copyto(stage, carriers.carried(array))
        return tensor

    def _refusal(self, dtype: str, shape: tuple[int, ...]) -> InputError:
        got = TensorSpec(self.spec.name, shape, dtype).describe()
        return InputError(f"input wanted: {self.spec.describe()}, given: {got}")


@dataclass(frozen=True)
class OpenPort(InputPort):
    """The port of an input with open sizes: any within their bounds will do."""

    def _fits(self, shape: tuple[int, ...]) -> bool:
        return dims.fits(self.spec.shape, shape)

    def _copied(self, array: Array) -> Tensor:
        """A copy of its own for each call, which may have another shape than the last one."""
        stage = empty(array.shape, self.dtype)
        np.copyto(stage, array)
        return to_tensor(stage)


def _plain(tensor: Any) -> Any:
    """A tensor of torch's with its minus carried out, which DLPack would leave out."""
    resolve = getattr(tensor, "resolve_neg", None)
    return tensor if resolve is None else resolve()


class _Exposed:
    """Shows a tensor to numpy with its strides, as unsigned integers of the same width."""

    def __init__(self, tensor: Tensor, width: int) -> None:
        self.tensor = tensor
        self.__array_interface__ = {
            "version": 3,
            "shape": tuple(tensor.shape),
            "strides": tuple(width * step for step in tensor.strides),
            "typestr": f"<u{width}",
            "data": (tensor.data_ptr(), False),
        }

    @classmethod
    def view(cls, tensor: Tensor, dtype: np.dtype[Any]) -> Array:
        """The tensor's memory as a numpy array, whatever its layout."""
        return np.asarray(cls(tensor, dtype.itemsize)).view(dtype)


def _is_aligned(array: Array) -> bool:
    return int(array.ctypes.data) % ALIGNMENT == 0


def _held(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which compiled code holds what has this one."""
    return np.dtype(carriers.carrier(str(dtype)))


def in_dlpack(dtype: np.dtype[Any]) -> bool:
    """Whether numpy's DLPack knows the dtype, which is true of numpy's own."""
    return bool(dtype.type.__module__ != ml_dtypes.__name__)


def library_of(tensors: Sequence[Any]) -> Any:
    """The module that the first tensor comes from, where it takes DLPack; else None."""
    if not tensors or isinstance(tensors[0], np.ndarray):
        return np
    module = sys.modules.get(type(tensors[0]).__module__.partition(".")[0])
    return module if hasattr(module, "from_dlpack") else None


def to_library(library: Any, tensor: Tensor, dtype: np.dtype[Any]) -> Any:
    """A tensor as one of the library's; tensors of unknown ones stay TVM's."""
    if library is np:
        return to_numpy(tensor, dtype)
    foreign = isinstance(tensor, tvm_ffi.Tensor)
    return tensor if library is None or not foreign else library.from_dlpack(tensor)


def copying(index: int, read: Reader | None) -> tuple[int, Reader | None]:
    """An output that was asked for before: the caller must not find that two arrays are one."""
    return index, read and (lambda tensor: read(tensor).copy())


def check_mapping(feed: Any) -> None:
    """Raise InputError unless arrays are given by name."""
    if not isinstance(feed, Mapping):
        raise InputError(f"expected arrays by input name, got {type(feed).__name__}")
