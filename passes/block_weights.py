"""Multiply by weights that a model holds in 8 or 4 bits as they are, block by block."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from tvm import relax, tirx

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.ir import roundable
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
from hybridc.compiler.kernels.products import grouped_bytes, grouped_weights, weight_only
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import group_quantization
from hybridc.compiler.target import Target
from hybridc.passes import _constant_products

_FLOAT = "float32"
_NARROW = (np.iinfo(np.int8).min, np.iinfo(np.int8).max)


@dataclass(frozen=True)
class BlockWeights(Pass):
    """Multiply by weights that a model holds in 8 or 4 bits as they are, block by block.

    A product of float32 with a constant matrix of integers, each block of whose inputs has a scale
    and perhaps a zero point, becomes a kernel that reads the integers.  Scales stay as they
    are.  Everything else, such as blocks along the outputs, is left to `fold-constants`.

    Where the model allows it, and the target multiplies bytes, activations are rounded to 8 bits,
    each row of each block by its largest.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every function of the graph; the kernels join the module."""
        packer = _Packer(context.target, relax.BlockBuilder(module))
        rewritten = rewrite(module, packer.rule)
        if rewritten is module:
            return rewrite(module, _unmarked)
        rewritten = rewrite(rewritten, _unmarked)
        context.lowered |= packer.taken
        counted = _constant_products.counted(packer.taken)
        context.notes.append(f"weights of {counted} as the model holds them, in blocks")
        if packer.rounded:
            told = f"activations of {packer.rounded} products rounded to 8 bits"
            context.notes.append(f"{told}, as the model allows")
        functions = packer.builder.get().functions_items()
        kernels = {var: func for var, func in functions if isinstance(func, tirx.PrimFunc)}
        return updated(rewritten, kernels)


@dataclass(frozen=True)
class _Blocks:
    """Integers `[K, N]` less zeros times scales `[blocks, N]`, each for `size` inputs."""

    integers: Array
    scales: Array
    zeros: Array | None
    size: int
    bits: int


@dataclass
class _Packer:
    target: Target
    builder: Any
    taken: Counter[str] = field(default_factory=Counter[str])
    rounded: int = 0

    def rule(self, value: Expr, graph: Graph) -> Expr | None:
        """A product with weights in blocks as a kernel that unpacks them."""
        if operator(value) != "matmul" or not _is_plain(value.args[0]):
            return None
        blocks = _blocks_of(value.args[1], graph)
        if blocks is None:
            return None
        marked = graph.call(value.args[0], roundable.OPERATOR)
        x = value.args[0] if marked is None else marked.args[0]
        self.taken["matmul"] += 1
        may_round = marked is not None
        if may_round and grouped_bytes.fits(blocks.size, blocks.bits, self.target):
            self.rounded += 1
            kernel, operands = self._of_bytes(x, blocks)
        else:
            kernel, operands = self._of_floats(x, blocks)
        var = self.builder.add_func(kernel, "block_weights_dense")
        given = [constant(array, array.dtype.name) for array in operands]
        return relax.call_tir(var, [x, *given], value.ty)

    def _of_bytes(self, x: Expr, blocks: _Blocks) -> tuple[PrimFunc, list[Array]]:
        """The kernel that rounds activations, and what it multiplies by."""
        columns, bits = blocks.integers.shape[1], blocks.bits
        width = weight_only.panel_width(1, columns, self.target)
        integers = grouped_bytes.packed(_extended(blocks), bits, width)
        scales, *zeros = _factors(blocks, width)
        point = zeros[0] if zeros else None
        kernel = grouped_bytes.dense(opened(shape(x)), integers, scales, columns, bits, point)
        return kernel, [integers, scales, *zeros]

    def _of_floats(self, x: Expr, blocks: _Blocks) -> tuple[PrimFunc, list[Array]]:
        """The kernel of float32 for rows of an open number, or of a fixed one."""
        data, columns = opened(shape(x)), blocks.integers.shape[1]
        few = is_open(x) or grouped_weights.fits(prod(data[:-1]))
        rows = 1 if is_open(x) else prod(data[:-1])
        width = weight_only.panel_width(rows, columns, self.target)
        whole = group_quantization.Grouped(
            _extended(blocks), blocks.scales, blocks.size, len(blocks.integers), blocks.bits
        )
        integers, _ = group_quantization.packed(whole, width)
        factors = _factors(blocks, width)
        zeros = factors[1] if len(factors) > 1 else None
        if few:
            integers = grouped_weights.stored(integers, blocks.bits)
            made = grouped_weights.dense(data, integers, factors[0], columns, blocks.bits, zeros)
        else:
            made = weight_only.dense(data, integers, factors[0], columns, blocks.bits, zeros=zeros)
        return made, [integers, *factors]


def _unmarked(value: Expr, _: Graph) -> Expr | None:
    """Activations that no kernel rounds, as they are: passes to come know no mark."""
    return value.args[0] if operator(value) == roundable.OPERATOR else None


def _is_plain(x: Expr) -> bool:
    """Whether activations are float32, in rows of a known length."""
    known = x.ty.shape is not None and int(x.ty.ndim) >= 2 and _constant_products.is_sized(x.ty)
    return known and str(x.ty.dtype) == _FLOAT


def _extended(blocks: _Blocks) -> Array:
    """The integers, with zeros behind the last where it leaves a block incomplete."""
    count, columns = blocks.scales.shape
    integers = np.zeros((count * blocks.size, columns), np.int8)
    integers[: len(blocks.integers)] = blocks.integers
    return integers


def _factors(blocks: _Blocks, width: int) -> list[Array]:
    """Scales in panels, and zeros where there are some."""
    scales = blocks.scales.astype(ml_dtypes.bfloat16)
    if (scales.astype(np.float32) != blocks.scales).any():
        scales = blocks.scales
    made = [group_quantization.in_panels(scales, width)]
    if blocks.zeros is not None:
        made.append(group_quantization.in_panels(blocks.zeros, width))
    return made


def _blocks_of(weight: Expr, graph: Graph) -> _Blocks | None:
    """What a matrix `[K, N]` is made of, if its blocks lie along the inputs."""
    turned = graph.call(weight, "permute_dims")
    scaled = graph.call(weight if turned is None else turned.args[0], "multiply")
    if scaled is None or len(shape(scaled)) != 2 or str(scaled.ty.dtype) != _FLOAT:
        return None
    whole = _inner(scaled.args[0], graph, _FLOAT)
    less = None if whole is None else graph.call(whole, "subtract")
    data = _inner(whole if less is None else less.args[0], graph, "int32")
    scale = _spread(scaled.args[1], graph)
    point = None if less is None else _spread(_inner(less.args[1], graph, "int32"), graph)
    integers = None if data is None else graph.constant(data)
    axis = 0 if turned is None else 1
    parts = [scale] if less is None else [scale, point]
    if integers is None or any(p is None or p[1:] != (scale[1], axis) for p in parts if scale):
        return None
    if scale is None or (less is not None and point is None):
        return None
    arrays = [integers, *(p[0] for p in parts if p is not None)]
    return _made(arrays if turned is None else [a.T for a in arrays], scale[1])


def _made(arrays: Sequence[Array], size: int) -> _Blocks | None:
    """Blocks of signed integers of as few bits as these need."""
    integers, scales, *zeros = arrays
    low, high = int(integers.min()), int(integers.max())
    bits = 4 if (low >= -8 and high <= 7) or (low >= 0 and high <= 15) else 8
    half = 2 ** (bits - 1)
    shift = half if high >= half else 0
    points = (zeros[0].astype(np.int32) if zeros else np.zeros(scales.shape, np.int32)) - shift
    if points.min() < _NARROW[0] or points.max() > _NARROW[1] or low - shift < _NARROW[0]:
        return None
    if size % group_quantization.per_element(bits) or not np.isfinite(scales).all():
        return None
    moved = (integers.astype(np.int32) - shift).astype(np.int8)
    known = points.astype(np.int8) if points.any() else None
    return _Blocks(moved, np.ascontiguousarray(scales), known, size, bits)


def _inner(value: Expr | None, graph: Graph, dtype: str) -> Expr | None:
    """What is cast to a type."""
    cast = None if value is None else graph.call(value, "astype")
    return cast.args[0] if cast is not None and str(cast.ty.dtype) == dtype else None


def _spread(value: Expr | None, graph: Graph) -> tuple[Array, int, int] | None:
    """A constant that is repeated along an axis, how often, and the axis; the last may be cut."""
    if value is None:
        return None
    part = graph.call(value, "strided_slice")
    repeated = graph.call(value if part is None else part.args[0], "repeat")
    known = None if repeated is None else graph.constant(repeated.args[0])
    if repeated is None or known is None or repeated.attrs.axis is None:
        return None
    return known, int(repeated.attrs.repeats), int(repeated.attrs.axis)
