"""Lay constant weights out so that a GPU reads them by 16 bytes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    constant,
    opened,
    operator,
    rewrite,
    shape,
    updated,
    with_attributes,
)
from hybridc.compiler.kernels.products import turned_weights
from hybridc.compiler.model import Array

_BYTES = {"float32": 4, "float16": 2, "bfloat16": 2, "int8": 1, "uint8": 1}
# Bytes that a thread reads at once; of pixels, whose channels are few, half as many do.
_VECTOR, _PIXEL = 16, 8
# Of bytes tensor cores want neighbours along the depth.
_BY_DEPTH = 1


@dataclass(frozen=True)
class AlignWeights(Pass):
    """Lay out constant weights so that a GPU reads 16 bytes at a time.

    A matrix `[K, N]` whose rows are not a multiple of 16 bytes, such as that of GPT-2's 50257
    words, is transposed if its columns are; matrices of 8-bit integers always are.  Images of three
    channels in types of at most 16 bits get a fourth one, of zeros, and so do their weights.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every function of the graph; the kernels join the module."""
        builder = relax.BlockBuilder(module)
        rewritten = rewrite(module, _Aligner(builder).rule)
        if rewritten is module:
            return module
        functions = builder.get().functions_items()
        kernels = {var: func for var, func in functions if isinstance(func, tirx.PrimFunc)}
        return updated(rewritten, kernels)


@dataclass(frozen=True)
class _Aligner:
    """Rewrites one call at a time; the builder makes equal kernels one."""

    builder: Any

    def rule(self, value: Expr, graph: Graph) -> Expr | None:
        """Take products with constants, and convolutions of few channels."""
        name = operator(value)
        if name not in ("matmul", "nn.conv2d"):
            return None
        weight = graph.constant(value.args[1])
        types = [str(operand.ty.dtype) for operand in value.args]
        if weight is None or not set(types) <= _BYTES.keys():
            return None
        return self._turned(value, weight) if name == "matmul" else _widened(value, weight)

    def _turned(self, call: Expr, weight: Array) -> Expr | None:
        data = call.args[0]
        if weight.ndim != 2 or data.ty.ndim < 2 or data.ty.shape is None:
            return None
        size, sizes = _BYTES[str(data.ty.dtype)], opened(shape(data))
        if not isinstance(sizes[-1], int) or not weight.size:
            return None
        depth, columns = weight.shape
        plain = columns * size % _VECTOR == 0 and size > _BY_DEPTH
        if plain or depth * size % _VECTOR:
            return None
        turned = np.ascontiguousarray(weight.T)
        types = str(data.ty.dtype), str(call.ty.dtype)
        var = self.builder.add_func(turned_weights.dense(sizes, turned, *types), "dense")
        return relax.call_tir(var, [data, constant(turned, turned.dtype.name)], call.ty)


def _widened(call: Expr, weight: Array) -> Expr | None:
    """A convolution whose pixels are pieces of 8 bytes, or 4 of single bytes."""
    attrs: Any = call.attrs
    size, channels = _BYTES[str(call.args[0].ty.dtype)], weight.shape[-1]
    layouts = str(attrs.data_layout), str(attrs.kernel_layout)
    if layouts != ("NHWC", "OHWI") or int(attrs.groups) != 1 or channels != 3 or size > 2:
        return None
    data = relax.op.nn.pad(call.args[0], [0, 0] * 3 + [0, 1])
    wide = np.pad(weight, [(0, 0)] * 3 + [(0, 1)])
    return with_attributes(call, [data, constant(wide, wide.dtype.name)])
