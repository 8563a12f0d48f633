"""Bytes of the host's memory as tensors, and how many bytes a tensor has."""

from math import prod

import tvm

from hybridc.compiler.model import Array
from hybridc.compiler.runtime import tensors
from hybridc.compiler.runtime.tensors import Tensor


def size_of(tensor: Tensor) -> int:
    """Bytes of a tensor, wherever it lies."""
    element = tvm.DataType(str(tensor.dtype))
    count: int = prod(map(int, tensor.shape))
    return count * ((int(element.bits) * int(element.lanes) + 7) // 8)


def on_bytes(memory: Array, shape: tuple[int, ...], dtype: str) -> Tensor:
    """A tensor of the host's on so many bytes, without a copy where they are aligned."""
    if not memory.nbytes:
        return tvm.runtime.empty(shape, dtype)
    return tensors.to_tensor(memory)._create_view(shape, dtype)
