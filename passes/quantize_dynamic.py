"""Multiply in 8-bit integers, with activations quantised row by row at run time."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Expr, Graph, constant, operator, rewrite
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import group_quantization
from hybridc.passes import _constant_products

op: Any = relax.op

_BITS = 8
_LARGEST = 255  # of an activation, as uint8
# Inputs whose sum of products, each at most 255 x 127, surely fits 32 bits.
_MOST_INPUTS = (2**31 - 1) // (_LARGEST * group_quantization.LEVELS[_BITS])
# Below any scale that means something; a row of zeros has it instead of 0, and divides by it.
_TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True)
class QuantizeDynamic(Pass):
    """Multiply in 8-bit integers, with activations quantised row by row at run time.

    Applies to products of activations with a constant matrix.  Weights become int8 with a scale per
    output channel.  Each row of activations becomes uint8 with its own scale and zero point, from
    its minimum and maximum, so that a row (a token, an image) with large elements does not cost the
    others precision; the scales are one more factor after the product, no dearer per row than per
    tensor.  Sums are exact, in int32.  `search` chooses weight scales of least squared error.
    """

    search: bool = False

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every function of the graph."""
        quantizer = _Quantizer(self.search)
        rewritten = rewrite(module, quantizer.rule)
        if rewritten is module:
            return module
        context.lowered |= quantizer.taken
        products = _constant_products.counted(quantizer.taken)
        context.notes.append(f"activations quantised by row, products in int8: {products}")
        return rewritten


@dataclass
class _Quantizer:
    """Rewrites one product at a time, and counts them."""

    search: bool
    taken: Counter[str] = field(default_factory=Counter[str])

    def rule(self, value: Expr, graph: Graph) -> Expr | None:
        """`((q - zero) @ w) * scale * steps`, the zero point's part taken off behind the sum."""
        matrix = _constant_products.matrix_of(value, graph)
        if matrix is None or operator(value) != "matmul" or matrix.shape[0] > _MOST_INPUTS:
            return None
        self.taken[operator(value)] += 1
        integers, steps = self._weights(matrix)
        data, scale, zero = _quantized(value.args[0])
        product = op.matmul(data, constant(integers, "int8"), out_dtype="int32")
        sums = constant(integers.astype(np.int64).sum(axis=0), "int32")
        exact = op.subtract(product, op.multiply(op.astype(zero, "int32"), sums))
        return op.multiply(op.multiply(op.astype(exact, "float32"), scale), steps)

    def _weights(self, matrix: Array) -> tuple[Array, Expr]:
        """Integers, and a scale for each of their columns."""
        found = group_quantization.quantize(matrix, _BITS, matrix.shape[0], self.search)
        return found.integers, constant(found.scales[0], "float32")


def _quantized(x: Expr) -> tuple[Expr, Expr, Expr]:
    """Activations as uint8; for each row a scale, and a zero point that is a whole float32.

    Zero is within the range always, and so a number of its own.
    """
    nothing, most = (constant(np.asarray(number), "float32") for number in (0.0, _LARGEST))
    low = op.minimum(op.min(x, axis=-1, keepdims=True), nothing)
    high = op.maximum(op.max(x, axis=-1, keepdims=True), nothing)
    width = op.divide(op.subtract(high, low), most)
    scale = op.maximum(width, constant(np.asarray(_TINY), "float32"))
    zero = op.round(op.divide(op.negative(low), scale))
    steps = op.add(op.round(op.divide(x, scale)), zero)
    return op.astype(op.minimum(op.maximum(steps, nothing), most), "uint8"), scale, zero
