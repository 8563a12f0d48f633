"""Products of quantised operands as products of integers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax

from hybridc.compiler.ir.rewrite import (
    Expr,
    Extent,
    Graph,
    are_known,
    constant,
    operator,
    shape,
    with_attributes,
)
from hybridc.compiler.model import Array
from hybridc.passes import _quantization
from hybridc.passes._quantization import Quantized

op: Any = relax.op

# Half of what int32 holds: the other half is left to zero points and bias.
_LARGEST = 2**30
# The largest activation, and the largest int8 without its sign.
_BYTE, _HALF = 255, 128
# Rows of a product of two activations up to which it waits for these, and a matrix's axes.
_FEW_ROWS, _MATRIX = 4, 2


@dataclass(frozen=True)
class _Weight:
    """Constant weights: `(integers + shift) * scale`, with one scale or one for each channel."""

    integers: Array
    shift: int
    scale: Array

    def sums(self, axes: tuple[int, ...]) -> Array:
        """Sums over the inputs, which are `axes`, for each output channel."""
        inputs = int(np.prod([self.integers.shape[axis] for axis in axes]))
        total: Array = self.integers.astype("int64").sum(axis=axes) + inputs * self.shift
        return total


def conv2d(value: Expr, graph: Graph) -> Expr | None:
    """A convolution of dequantised activations and constant weights, or None."""
    attrs = value.attrs
    layouts = str(attrs.data_layout), str(attrs.kernel_layout)
    if layouts not in (("NCHW", "OIHW"), ("NHWC", "OHWI")):
        return None
    weight, source = _weight(value.args[1], graph, 0), _activations(value.args[0], graph)
    if weight is None or source is None or weight.shift:
        return None
    zero = int(_quantization.scalar(source.zero, graph) or 0)
    product = _padded(value, source.data, weight.integers, zero)
    sums = weight.sums((1, 2, 3))
    return _dequantized(product, source, (sums, weight.scale), layouts[0].index("C"), graph)


def _padded(value: Expr, data: Expr, integers: Array, zero: int) -> Expr:
    """The convolution of integers, its padding filled with `zero`."""
    padding = [int(pad) for pad in value.attrs.padding]
    if zero and any(padding):
        (top, left, bottom, right), padding = padding, [0, 0, 0, 0]
        spatial = [top, bottom, left, right]
        first = value.attrs.data_layout == "NCHW"
        widths = [0, 0, 0, 0, *spatial] if first else [0, 0, *spatial, 0, 0]
        data = op.nn.pad(data, widths, "constant", zero)
    operands = [data, constant(integers, "int8")]
    return with_attributes(value, operands, padding=padding, out_dtype="int32")


def matmul(value: Expr, graph: Graph) -> Expr | None:
    """A product of dequantised activations and a constant matrix, or None.

    Weights that reach beyond int8 are shifted into it; what each row lacks then is the shift times
    the sum of its activations.
    """
    weight = _weight(value.args[1], graph, 1)
    source = _activations(value.args[0], graph)
    if weight is None or source is None or weight.integers.ndim != 2 or source.rank < 2:
        return None
    product = op.matmul(source.data, constant(weight.integers, "int8"), out_dtype="int32")
    if weight.shift:
        rows = op.sum(op.astype(source.data, "int32"), axis=-1, keepdims=True)
        lacking = op.multiply(rows, constant(np.asarray(weight.shift), "int32"))
        product = op.add(product, lacking)
    return _dequantized(product, source, (weight.sums((0,)), weight.scale), source.rank - 1, graph)


def of_activations(value: Expr, graph: Graph) -> Expr | None:
    """A product of two dequantised activations as one of integers, or None.

    Less their zero points, bytes fit 16 bits, whose products are exact.  One row is a sum, whose
    terms are read where they lie.
    """
    if operator(value) != "matmul":
        return None
    one, other = (_activations(operand, graph) for operand in value.args)
    if one is None or other is None or min(one.rank, other.rank) < _MATRIX:
        return None
    left, right = shape(one.data), shape(other.data)
    if not are_known((*left, *right)) or _BYTE**2 * left[-1] > _LARGEST:
        return None
    if left[-2] == 1 and left[:-2] == right[:-2]:
        product = _row_times_matrix(one, other, graph)
    elif left[-2] > _FEW_ROWS:
        operands = (_centred(tensor, "int16", graph) for tensor in (one, other))
        product = op.matmul(*operands, out_dtype="int32")
    else:
        return None
    scales = (graph.constant(tensor.scale) for tensor in (one, other))
    step = np.prod([np.asarray(scale, "float32").reshape(()) for scale in scales])
    nothing = constant(np.zeros((), "int32"), "int32")
    return op.dequantize(product, constant(np.asarray(step), "float32"), nothing, 0, "float32")


def _row_times_matrix(one: Quantized, other: Quantized, graph: Graph) -> Expr:
    """The sum over the depth, along memory where the matrix is a transpose."""
    lead, (depth, columns) = shape(one.data)[:-2], shape(other.data)[-2:]
    row = _centred(one, "int32", graph)
    transposed = _quantization.transposed(other.data, graph)
    if transposed is None:
        row = op.reshape(row, (*lead, depth, 1))
        return op.sum(op.multiply(row, _centred(other, "int32", graph)), axis=-2, keepdims=True)
    matrix = _centred(replace(other, data=transposed), "int32", graph)
    return op.reshape(op.sum(op.multiply(row, matrix), axis=-1), (*lead, 1, columns))


def _centred(tensor: Quantized, dtype: str, graph: Graph) -> Expr:
    """Bytes less their zero point, in a wider type."""
    zero = int(_quantization.scalar(tensor.zero, graph) or 0)
    wide = op.astype(tensor.data, dtype)
    return op.subtract(wide, constant(np.asarray(zero), dtype)) if zero else wide


def biased(value: Expr, graph: Graph) -> Expr | None:
    """An integer product with a constant bias of its own scale, added up as integers, or None."""
    for product, bias in (value.args, reversed(list(value.args))):
        tensor = _quantization.dequantized(product, graph)
        if tensor is None or tensor.stored != "int32" or not graph.only_use(product):
            continue
        scale, found = graph.constant(tensor.scale), _integers(bias, graph)
        if graph.constant(tensor.data) is not None or scale is None or found is None:
            continue
        integers, steps = found
        if not _spreads_to(integers.shape, shape(product)):
            continue
        if not np.allclose(tensor.along(scale), steps, rtol=1e-5, atol=0):
            continue
        total = _added(tensor.data, integers, graph)
        return op.dequantize(total, tensor.scale, tensor.zero, tensor.axis, tensor.dtype)
    return None


def _spreads_to(small: Sequence[int], large: Sequence[Extent]) -> bool:
    """Whether an array of fixed sizes can be added to one whose shape, perhaps open, stays."""
    pairs = zip(reversed(small), reversed(large), strict=False)
    return len(small) <= len(large) and all(
        size == 1 or (isinstance(whole, int) and size == whole) for size, whole in pairs
    )


def _dequantized(
    product: Expr,
    source: Quantized,
    weight: tuple[Array, Array],
    channel: int,
    graph: Graph,
) -> Expr | None:
    """The product of integers less what the activations' zero point adds, with its scale.

    `weight` holds the sums and scales of the weights by output channel.
    """
    sums, scale = weight
    zero, step = _quantization.scalar(source.zero, graph), graph.constant(source.scale)
    if zero is None or step is None:
        return None
    correction = -int(zero) * sums
    if zero and correction.any():
        extents = _quantization.broadcast_shape(sums.size, channel, source.rank)
        product = op.add(product, constant(correction.reshape(extents), "int32"))
    # In float32, as ONNX Runtime multiplies the scales.
    steps = step.astype("float32").reshape(()) * scale.astype("float32")
    return op.dequantize(
        product,
        constant(np.asarray(steps), "float32"),
        constant(np.zeros(np.shape(steps)), "int32"),
        channel if np.size(steps) > 1 else 0,
        "float32",
    )


def _weight(expr: Expr, graph: Graph, axis: int) -> _Weight | None:
    """Constant weights, with scales along `axis` or one; None if 8 bits do not hold them.

    Nor are there any where a sum of products could overflow.
    """
    tensor = _quantization.dequantized(expr, graph)
    if tensor is None or tensor.dtype != "float32":
        return None
    data, scale, zero = (graph.constant(e) for e in (tensor.data, tensor.scale, tensor.zero))
    if data is None or scale is None or zero is None or data.dtype not in ("int8", "uint8"):
        return None
    if scale.size > 1 and tensor.axis % data.ndim != axis:
        return None
    integers = data.astype("int32") - tensor.along(zero.astype("int32"))
    low, high = int(integers.min(initial=0)), int(integers.max(initial=0))
    if high - low > _BYTE:
        return None
    shift = max(high - (_HALF - 1), 0) or min(low + _HALF, 0)
    others = tuple(i for i in range(data.ndim) if i != axis)
    reach = np.abs(integers.astype("int64")).sum(axis=others).max(initial=0)
    inputs = data.size // max(1, data.shape[axis])
    if _BYTE * max(reach, _HALF * inputs if shift else 0) > _LARGEST:
        return None
    shifted = (integers - shift).astype("int8")
    return _Weight(shifted, shift, scale.reshape(()) if scale.size == 1 else scale.ravel())


def _activations(expr: Expr, graph: Graph) -> Quantized | None:
    """Unsigned bytes with one scale and zero point, known at run time alone."""
    tensor = _quantization.dequantized(expr, graph)
    if tensor is None or (tensor.stored, tensor.dtype) != ("uint8", "float32"):
        return None
    scalars = [_quantization.scalar(e, graph) for e in (tensor.scale, tensor.zero)]
    if None in scalars or graph.constant(tensor.data) is not None:
        return None
    return tensor


def _integers(expr: Expr, graph: Graph) -> tuple[Array, Array] | None:
    """A constant bias as int32, and its scale in a shape that broadcasts against it."""
    value, reshaped = graph.value(expr), None
    if operator(value) == "reshape":
        reshaped, value = shape(value), graph.value(value.args[0])
    tensor = _quantization.dequantized(value, graph)
    if tensor is None or tensor.stored != "int32":
        return None
    data, scale, zero = (graph.constant(e) for e in (tensor.data, tensor.scale, tensor.zero))
    if data is None or scale is None or zero is None or zero.any():
        return None
    steps = tensor.along(scale)
    if reshaped is not None:
        data = data.reshape(reshaped)
        if steps.ndim and steps.size != data.size:
            return None
        steps = steps.reshape(reshaped) if steps.ndim else steps
    return data, steps


def _added(data: Expr, integers: Array, graph: Graph) -> Expr:
    """Integers added to a product, together with those that were added before."""
    before = graph.call(data, "add")
    known = None if before is None else graph.constant(before.args[1])
    if before is None or known is None:
        return op.add(data, constant(integers, "int32"))
    total = known.astype("int64") + integers
    return op.add(before.args[0], constant(total, "int32"))
