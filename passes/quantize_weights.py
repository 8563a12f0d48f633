"""Store the weights of products in 8 or 4 bits, and multiply in float32."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx

from hybridc.compiler.errors import InputError
from hybridc.compiler.hardware import cached_weights
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    constant,
    is_open,
    opened,
    operator,
    rewrite,
    shape,
    updated,
)
from hybridc.compiler.kernels.products import grouped_weights, packing, vector_width, weight_only
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import compression, group_quantization
from hybridc.compiler.target import CUDA, Target
from hybridc.compiler.text.units import format_size
from hybridc.passes import _constant_products, _convolutions

# Rows of the strips that a product with an open number of them is cut into.
_MANY = 64
_BYTE = 8


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Store the weights of products in 8 or 4 bits, and multiply in float32.

    Each output channel has a bfloat16 scale for every `group` of inputs (or fewer, if that divides
    them more evenly), by which integers of `bits` bits are multiplied; the file holds only these.
    `search` chooses the scales of least squared error, which clip the largest weights where that
    makes the steps of the others finer.

    Products of activations with a constant matrix, and 1x1 convolutions of few pixels, become
    kernels that read the integers where an analytic model says that these are faster, or always
    (`in_kernel`), which takes the least memory.  On CPUs, weights of other products, and of
    convolutions that are channels last (`layout`) but not depthwise, are rounded, and unpacked when
    the artifact is loaded.  The rest is left to `pack-weights`, which must come later.
    """

    bits: int = 8
    group: int = 32
    search: bool = False
    in_kernel: bool = False

    def requires(self, module: IRModule) -> None:
        """The bits are some that kernels unpack, and a group has a weight."""
        if self.bits not in group_quantization.LEVELS:
            raise InputError(f"bits is 4 or 8, not {self.bits}")
        if self.group < 1:
            raise InputError(f"group is 1 or more, not {self.group}")

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every function of the graph; the kernels join the module."""
        near = cached_weights.state(cached_weights.weight_bytes(module), context.target) == "warm"
        quantizer = _Quantizer(self, context, relax.BlockBuilder(module), near)
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
    """Rewrites one call at a time, and counts what it took and the bytes of its weights.

    Weights of the model are `near` where all stay in the last cache from one run to the next.
    """

    options: QuantizeWeights
    context: Context
    builder: Any
    near: bool
    taken: Counter[str] = field(default_factory=Counter[str])
    before: int = 0
    after: int = 0

    @property
    def target(self) -> Target:
        return self.context.target

    def rule(self, value: Expr, graph: Graph) -> Expr | None:
        """A product with constant weights, as a kernel that unpacks them or with rounded ones."""
        matrix = _constant_products.matrix_of(value, graph)
        if matrix is not None and self._unpacks(value, matrix):
            return self._product(value, matrix)
        weight = (
            matrix if operator(value) == "matmul" else _constant_products.filter_of(value, graph)
        )
        if weight is None or compression.holds(self.context.compressed, weight):
            return None
        if self.target.kind == CUDA:  # whose kernels read weights in an order of their own
            return None
        return self._rounded(value, weight)

    def _unpacks(self, value: Expr, matrix: Array) -> bool:
        """Whether a kernel that unpacks its weights takes as long at most as one with float32."""
        if self.target.kind == CUDA or self.options.in_kernel:
            return True
        image = operator(value) == "nn.conv2d"
        if is_open(value.args[0]):
            return not image
        rows = prod(shape(value.args[0])[:-1])
        # Other kernels are fused into those of larger images.
        few = rows <= packing.FEW_ROWS if image else True
        bits = self.options.bits
        return few and weight_only.pays(rows, matrix.shape, bits, self.near, self.target)

    def _product(self, value: Expr, matrix: Array) -> Expr:
        """A product with a matrix as one kernel."""
        bits, gpu = self.options.bits, self.target.kind == CUDA
        data, columns = opened(shape(value.args[0])), matrix.shape[1]
        rows = _MANY if is_open(value.args[0]) else prod(data[:-1])
        width = weight_only.panel_width(rows, columns, self.target)
        quantized = self._quantized(value, matrix, weight_only.GPU_WIDTH if gpu else 1)
        integers, scales = group_quantization.packed(quantized, width)
        if grouped_weights.fits(rows) and not gpu:
            integers = grouped_weights.stored(integers, bits)
            kernel = grouped_weights.dense(data, integers, scales, columns, bits)
        else:
            kernel = weight_only.dense(data, integers, scales, columns, bits, padded=not gpu)
        var = self.builder.add_func(kernel, "weight_only_dense")
        return relax.call_tir(var, [value.args[0], *_constants((integers, scales))], value.ty)

    def _rounded(self, value: Expr, weight: Array) -> Expr:
        """The product with what integers stand for, `[K, N]` or `[N, KH, KW, I]`."""
        image = weight.ndim > 2
        matrix = weight.reshape(len(weight), -1).T if image else weight
        whole = image and self._merges(value, weight)
        quantized = self._quantized(value, matrix, whole=whole)
        wide = quantized.dequantized()
        wide = np.ascontiguousarray(wide.T).reshape(weight.shape) if image else wide
        compression.add(self.context.compressed, wide, quantized)
        operands = [value.args[0], *_constants([wide])]
        return tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)

    def _merges(self, value: Expr, weight: Array) -> bool:
        """Whether packing joins groups of channels, whose few inputs then share a scale."""
        groups = _convolutions.attributes(value, weight).groups
        lanes = vector_width.lanes_for(len(weight), groups, self.target)
        return vector_width.merged(len(weight) // groups, groups, lanes) > 1

    def _quantized(
        self, value: Expr, matrix: Array, multiple: int = 1, *, whole: bool = False
    ) -> group_quantization.Grouped:
        """Integers and scales of `[K, N]` by groups of a `multiple`, or all inputs as a `whole`."""
        options = self.options
        quantized = group_quantization.quantize(
            matrix, options.bits, len(matrix) if whole else options.group, options.search, multiple
        )
        self.taken[operator(value)] += 1
        self.before += matrix.nbytes
        self.after += matrix.size * options.bits // _BYTE + 2 * quantized.scales.size
        return quantized


def _constants(arrays: Sequence[Array]) -> list[Expr]:
    return [constant(array, array.dtype.name) for array in arrays]
