"""Products of activations with constant weights: what quantisation of weights looks for."""

from collections import Counter
from typing import Any

import numpy as np
from tvm import tirx

from hybridc.compiler.ir.rewrite import Expr, Graph, operator
from hybridc.compiler.model import Array
from hybridc.passes import _convolutions

_FLOAT = "float32"


def matrix_of(value: Expr, graph: Graph) -> Array | None:
    """The constant `[K, N]` of a matrix product, or of a 1x1 convolution that is one, in float32.

    None for all other values, and where a shape is open, an extent zero, or a weight not finite.
    """
    name = operator(value)
    if name not in ("matmul", "nn.conv2d"):
        return None
    weight = graph.constant(value.args[1])
    if weight is None or not all(_plain(tensor) for tensor in (*value.args, value)):
        return None
    matrix = _of_convolution(value, weight) if name == "nn.conv2d" else weight
    rank = int(value.args[0].ty.ndim)
    if matrix is None or matrix.ndim != 2 or rank < 2:
        return None
    return matrix if np.isfinite(matrix).all() else None


def filter_of(value: Expr, graph: Graph) -> Array | None:
    """The constant `[O, KH, KW, I]` of a convolution, channels last, in float32.

    None for all other values, for depthwise convolutions, and where an extent is zero, or a weight
    not finite.
    """
    if operator(value) != "nn.conv2d" or not _convolutions.is_channels_last(value):
        return None
    weight = graph.constant(value.args[1])
    if weight is None or not all(_plain(tensor) for tensor in (*value.args, value)):
        return None
    if _convolutions.is_depthwise(value):
        return None
    return weight if np.isfinite(weight).all() else None


def is_sized(tensor: Any) -> bool:
    """Whether the extents are known, the last one as a number, and none of them is zero."""
    extents = getattr(tensor.shape, "values", None)
    if not extents or not isinstance(extents[-1], tirx.IntImm):
        return False
    return all(not isinstance(extent, tirx.IntImm) or extent > 0 for extent in extents)


def counted(names: Counter[str]) -> str:
    """`12 matmul, 1 nn.conv2d`."""
    return ", ".join(f"{count} {name}" for name, count in sorted(names.items()))


def _of_convolution(call: Expr, weight: Array) -> Array | None:
    """The matrix of a convolution, channels last, that multiplies each pixel by itself."""
    if not _convolutions.is_channels_last(call) or weight.shape[1:3] != (1, 1):
        return None
    conv = _convolutions.attributes(call, weight)
    return weight[:, 0, 0].T if conv.pointwise and conv.groups == 1 else None


def _plain(tensor: Expr) -> bool:
    """Whether a tensor is float32, of extents none of which is zero; the last one is known."""
    shape = tensor.ty.shape
    return (
        str(tensor.ty.dtype) == _FLOAT
        and shape is not None
        and all(not isinstance(extent, tirx.IntImm) or extent > 0 for extent in shape.values)
        and isinstance(shape.values[-1], tirx.IntImm)
    )
