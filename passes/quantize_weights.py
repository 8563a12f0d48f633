"""Store the weights of matrix products in 8 or 4 bits, and multiply in float32."""

from collections import Counter
from dataclasses import dataclass, field
from math import prod
from typing import Any

from tvm import relax, tirx

from hybridc.compiler.errors import InputError
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.kernels import grouped_weights, weight_only
from hybridc.compiler.quantization import group_quantization
from hybridc.compiler.rewrite import (
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
from hybridc.compiler.target import CUDA, Target
from hybridc.compiler.units import format_size
from hybridc.passes import _constant_products

# Rows of the strips that a product with an open number of them is cut into.
_MANY = 64


@dataclass(frozen=True)
class QuantizeWeights(Pass):
    """Store the weights of matrix products in 8 or 4 bits, and multiply in float32.

    Each output channel has a bfloat16 scale for every `group` of inputs (or fewer, if that divides
    them more evenly), by which integers of `bits` bits are multiplied within the kernel; only these
    are stored and read.  `search` chooses the scales of least squared error, which clip the largest
    weights where that makes the steps of the others finer.

    Applies to products of activations with a constant matrix, and to 1x1 convolutions that are
    channels last (`layout`).  The rest is left to `pack-weights`, which must come later.
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
        context.lowered.update(quantizer.taken)
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
        """A product with a constant matrix as a call of the kernel that unpacks it."""
        matrix = _constant_products.matrix_of(value, graph)
        if matrix is None:
            return None
        options, gpu = self.options, self.target.kind == CUDA
        quantized = group_quantization.quantize(
            matrix, options.bits, options.group, options.search, weight_only.GPU_WIDTH if gpu else 1
        )
        data = opened(shape(value.args[0]))
        columns = matrix.shape[1]
        rows = _MANY if is_open(value.args[0]) else prod(data[:-1])
        width = weight_only.panel_width(rows, columns, self.target)
        integers, scales = group_quantization.packed(quantized, width)
        if grouped_weights.fits(rows) and not gpu:
            integers = grouped_weights.stored(integers, options.bits)
            kernel = grouped_weights.dense(data, integers, scales, columns, options.bits)
        else:
            kernel = weight_only.dense(
                data, integers, scales, columns, options.bits, padded=not gpu
            )
        var = self.builder.add_func(kernel, "weight_only_dense")
        operands = [constant(array, array.dtype.name) for array in (integers, scales)]
        self.taken[operator(value)] += 1
        self.before += matrix.nbytes
        self.after += integers.nbytes + scales.nbytes
        return relax.call_tir(var, [value.args[0], *operands], value.ty)
