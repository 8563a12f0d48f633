"""Store the weights of products in 8 or 4 bits, and multiply in float32."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from hybridc.compiler.errors import InputError
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.kernels import (
    contractions,
    grouped_weights,
    packing,
    vector_width,
    weight_only,
)
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import group_quantization
from hybridc.compiler.rewrite import (
    Expr,
    Graph,
    are_known,
    constant,
    is_open,
    opened,
    operator,
    rewrite,
    shape,
    updated,
)
from hybridc.compiler.target import CUDA, Target
from hybridc.compiler.units import format_size
from hybridc.passes import _constant_products, _convolutions

# Rows of the strips that a product with an open number of them is cut into.
_MANY = 64
_WIDE = "float32"


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Store the weights of products in 8 or 4 bits, and multiply in float32.

    Each output channel has a bfloat16 scale for every `group` of inputs (or fewer, if that divides
    them more evenly), by which integers of `bits` bits are multiplied within the kernel; only these
    are stored and read.  `search` chooses the scales of least squared error, which clip the largest
    weights where that makes the steps of the others finer.

    Applies to products of activations with a constant matrix, and to 1x1 convolutions that are
    channels last (`layout`).  On CPUs other convolutions but depthwise ones are direct, with
    weights that a kernel before them unpacks in each call, into memory that layers share.  The
    rest is left to `pack-weights`, which must come later.
    """

    bits: int = 8
    group: int = 32
    search: bool = False

    def requires(self, module: IRModule) -> None:
        """The bits are some that kernels unpack, and a group has a weight."""
        if self.bits not in group_quantization.LEVELS:
            raise InputError(f"bits is 4 or 8, not {self.bits}")
        if self.group < 1:
            raise InputError(f"group is 1 or more, not {self.group}")

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every function of the graph; the kernels join the module."""
        quantizer = _Quantizer(self, context.target, relax.BlockBuilder(module))
        rewritten = rewrite(module, quantizer.rule)
        if rewritten is module:
            return module
        context.lowered |= quantizer.taken
        context.notes.append(self._told(quantizer))
        functions = quantizer.builder.get().functions_items()
        kernels = {var: func for var, func in functions if isinstance(func, tirx.PrimFunc)}
        return updated(rewritten, kernels)

    def _told(self, done: "_Quantizer") -> str:
        before, after = map(format_size, (done.before, done.after))
        return (
            f"weights of {_constant_products.counted(done.taken)} in int{self.bits}, a scale for "
            f"each group of {self.group}: {before} became {after}"
        )


@dataclass
class _Quantizer:
    """Rewrites one call at a time, and counts what it took and the bytes of its weights."""

    options: QuantizeWeights
    target: Target
    builder: Any
    taken: Counter[str] = field(default_factory=Counter[str])
    before: int = 0
    after: int = 0

    def rule(self, value: Expr, graph: Graph) -> Expr | None:
        """A product with constant weights as a call of kernels that unpack them."""
        if (matrix := _constant_products.matrix_of(value, graph)) is not None:
            return self._product(value, matrix)
        weight = _constant_products.filter_of(value, graph)
        if weight is None or self.target.kind == CUDA:  # whose convolutions read unpacked weights
            return None
        return self._convolution(value, weight)

    def _product(self, value: Expr, matrix: Array) -> Expr:
        """A product with a matrix as one kernel."""
        bits, gpu = self.options.bits, self.target.kind == CUDA
        data, columns = opened(shape(value.args[0])), matrix.shape[1]
        rows = _MANY if is_open(value.args[0]) else prod(data[:-1])
        width = weight_only.panel_width(rows, columns, self.target)
        self.taken[operator(value)] += 1
        self.before += matrix.nbytes
        integers, scales = self._packed(matrix, width, weight_only.GPU_WIDTH if gpu else 1)
        if grouped_weights.fits(rows) and not gpu:
            integers = grouped_weights.stored(integers, bits)
            kernel = grouped_weights.dense(data, integers, scales, columns, bits)
        else:
            kernel = weight_only.dense(data, integers, scales, columns, bits, padded=not gpu)
        var = self.builder.add_func(kernel, "weight_only_dense")
        return relax.call_tir(var, [value.args[0], *_constants((integers, scales))], value.ty)

    def _convolution(self, value: Expr, weight: Array) -> Expr:
        """A convolution behind a kernel that unpacks its weights.

        A weight serves so many pixels that it is unpacked once for all of them.
        """
        self.taken[operator(value)] += 1
        self.before += weight.nbytes
        if are_known(shape(value.args[0])[1:]):
            return self._direct(value, weight)
        # A loop nest of open sizes reads weights in their own order.
        filters = self._unpacked(weight.reshape(len(weight), -1).T, weight.shape[1:], 1)
        operands = [value.args[0], relax.op.reshape(filters, weight.shape)]
        return tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)

    def _direct(self, value: Expr, weight: Array) -> Expr:
        """A direct convolution: Winograd's weights would be up to four times as many."""
        conv, outputs = _convolutions.attributes(value, weight), weight.shape[0]
        lanes = vector_width.lanes_for(outputs, conv.groups, self.target)
        filters, groups = packing.pack_filter(weight, conv.groups, lanes)
        matrix = np.moveaxis(filters, 0, -2).reshape(-1, filters.shape[0] * lanes)
        unpacked = self._unpacked(matrix, filters.shape[1:-1], lanes)
        source, conv = opened(shape(value.args[0])), replace(conv, groups=groups)
        kernel = contractions.conv2d(source, filters, outputs, conv, _WIDE)
        var = self.builder.add_func(kernel, "conv2d")
        return relax.call_tir(var, [value.args[0], unpacked], value.ty)

    def _unpacked(self, matrix: Array, window: Sequence[int], width: int) -> Expr:
        """The kernel that makes `[N / width, *window, width]` of what is stored of `[K, N]`."""
        stored = self._packed(matrix, width)
        kernel = weight_only.unpacked(window, *stored, self.options.bits)
        shape_ = (matrix.shape[1] // width, *window, width)
        var = self.builder.add_func(kernel, "unpack_weights")
        return relax.call_tir(var, _constants(stored), relax.TensorType(shape_, _WIDE))

    def _packed(self, matrix: Array, width: int, multiple: int = 1) -> tuple[Array, Array]:
        """Integers and scales of `[K, N]` in panels of `width`, by groups of a `multiple`."""
        options = self.options
        quantized = group_quantization.quantize(
            matrix, options.bits, options.group, options.search, multiple
        )
        packed = group_quantization.packed(quantized, width)
        self.after += sum(array.nbytes for array in packed)
        return packed


def _constants(arrays: Sequence[Array]) -> list[Expr]:
    return [constant(array, array.dtype.name) for array in arrays]
