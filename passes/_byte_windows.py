"""Which constant weights of bytes are packed as windows; see `kernels.byte_windows`."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from hybridc.compiler.kernels.products import byte_packing, byte_windows
from hybridc.compiler.kernels.products.byte_packing import LANES, WINDOW
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.kernels.products.packing import round_up
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

Packed = tuple[Array, Array]


def of_matrix(weight: Array, rows: Sequence[Any], target: Target) -> Packed | None:
    """Weights `[K, N]` as windows, for as many rows, or None if something else is faster."""
    depth = len(weight)
    if weight.dtype != np.int8 or depth < WINDOW:
        return None
    return _packed(weight[np.newaxis], rows, depth, target)


def of_filter(weight: Array, conv: Conv2d, rows: Sequence[Any], target: Target) -> Packed | None:
    """Weights `[O, KH, KW, I]` likewise: each row of a convolution's window is one piece."""
    if weight.dtype != np.int8 or conv.groups > 1 or conv.dilation[1] > 1:
        return None
    outputs, height, width, inputs = weight.shape
    pieces = weight.reshape(outputs, height, -1).transpose(1, 2, 0)
    # An odd number of channels is rounded up where they are multiplied in pairs.
    return _packed(pieces, rows, height * width * (inputs + inputs % 2), target)


def _packed(weight: Array, rows: Sequence[Any], pairs: int, target: Target) -> Packed | None:
    """The windows of `[runs, size, N]`, where they beat as many inputs multiplied in pairs."""
    if not all(isinstance(count, int) for count in rows):
        return None
    if not byte_windows.possible(prod(rows), pairs, weight.shape[2], target):
        return None
    # Zeros behind the columns make whole vectors of them.
    columns = round_up(weight.shape[2], LANES)
    whole = np.pad(weight, ((0, 0), (0, 0), (0, columns - weight.shape[2])))
    packed = byte_packing.pack(whole)
    return packed if byte_windows.pays(packed[1], pairs) else None
