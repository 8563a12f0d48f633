"""What a kernel computes and moves at least: the two coordinates of a roofline."""

from math import inf, prod
from typing import Any

import numpy as np
import tvm
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm.s_tir import SBlock
from tvm.s_tir.analysis import estimate_tir_flops
from tvm_ffi import structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.tensor_expressions import FLOPS

# A kernel's attribute that lets its float32 operands be rounded, to `tf32`.
MULTIPLY = "hybridc.multiply"
# The attribute of a scheduled kernel that tells its arithmetic: blocks to ask there may be none.
ARITHMETIC = "hybridc.arithmetic"
# Integers of 16 bits are what Winograd's transforms make of bytes.
_NARROW = {"int8": "int8", "int16": "int8", "bfloat16": "bf16", "float16": "fp16"}


def flops(func: PrimFunc) -> int:
    """Arithmetic operations of one call, a multiply-add counted as two.

    Convolutions and products say themselves what they are asked for, so that multiplications by
    the zeros of packed weights do not count; anything else is counted from its loop nest.
    """
    if func.attrs and ARITHMETIC in func.attrs:
        return int(func.attrs[ARITHMETIC])
    if found := stated(func):
        return found
    if not _is_fixed(func):
        return 0  # what it computes is known as it is called
    try:
        return int(estimate_tir_flops(tvm.IRModule({"main": func})))
    except tvm.error.InternalError:
        return 0  # it holds a call that has no count, such as a sort


def stated(func: PrimFunc) -> int:
    """What a kernel's convolutions and products say that they are asked for."""
    return sum(_stated(func))


def stated_once(func: PrimFunc) -> int:
    """The most that one of them says, for one place of each open size: strips are copies of it."""
    return max(_stated(func), default=0)


def _stated(func: PrimFunc) -> list[int]:
    found: list[int] = []

    def visit(block: Any) -> None:
        if FLOPS in block.annotations:
            found.append(int(block.annotations[FLOPS]))

    structural_walk(func.body, (SBlock, visit))
    return found


def precision(func: PrimFunc) -> str:
    """What the kernel's product is multiplied in: `fp32`, `bf16`, `int8`, …, by its operands."""
    types: set[str] = set()

    def visit(block: Any) -> None:
        if FLOPS in block.annotations:
            types.update(str(read.source.dtype) for read in block.reads)

    structural_walk(func.body, (SBlock, visit))
    if MULTIPLY in func.attrs:
        return str(func.attrs[MULTIPLY])
    types = types or factors(func)
    return next((name for dtype, name in _NARROW.items() if dtype in types), "fp32")


def factors(func: PrimFunc) -> set[str]:
    """The types whose products a kernel sums up, before they are widened."""
    types: set[str] = set()

    def visit(block: Any) -> None:
        kinds = [int(axis.iter_type) for axis in block.iter_vars]
        if tirx.IterVar.CommReduce in kinds and isinstance(block.body, tirx.BufferStore):
            added = block.body.value
            terms = (added.a, added.b) if isinstance(added, prim.Add) else ()
            for term in map(_narrowest, terms):
                if isinstance(term, prim.Mul):
                    types.update(str(_narrowest(side).ty.dtype) for side in (term.a, term.b))

    structural_walk(func.body, (SBlock, visit))
    return types


def _narrowest(value: Any) -> Any:
    while isinstance(value, prim.Cast):
        value = value.value
    return value


def traffic(func: PrimFunc) -> int:
    """Bytes of one call's arguments, each moved once; 0 if an extent is not known.

    Of an argument that is looked up in (a table of embeddings) only what is asked for counts.
    """
    total, reads = 0, _reads(func)
    for param in func.params:
        if not isinstance(param.ty, tirx.buffer.BufferType):
            continue
        if not all(isinstance(extent, tirx.IntImm) for extent in param.shape):
            return 0
        size = prod(int(extent) for extent in param.shape)
        asked = [rounds for source, rounds in reads if source.same_as(param)]
        size = int(min(size, sum(asked))) if asked else size
        total += size * np.dtype(str(param.dtype)).itemsize
    return total


def _reads(func: PrimFunc) -> list[tuple[Any, float]]:
    """Each load with its buffer, and how often it is made; infinite if it is no look-up.

    A look-up is at a place that comes from memory, so that nobody knows which elements it needs.
    """
    found: list[tuple[Any, float]] = []

    def visit(block: Any) -> None:
        if _found(SBlock, block.body):
            return  # its blocks come by themselves
        extents = [axis.dom.extent for axis in block.iter_vars]
        known = all(isinstance(extent, tirx.IntImm) for extent in extents)
        once = known and isinstance(block.body, tirx.BufferStore)
        rounds = prod(map(int, extents)) if once else inf
        for load in _found(TensorLoad, block.body):
            found.append((load.source, rounds if _found(TensorLoad, *load.indices) else inf))

    structural_walk(func.body, (SBlock, visit))
    return found


def _found(kind: type, *nodes: Any) -> list[Any]:
    """What there is of a kind in any of the nodes."""
    found: list[Any] = []
    for node in nodes:
        structural_walk(node, (kind, found.append))
    return found


def _is_fixed(func: PrimFunc) -> bool:
    return all(
        isinstance(extent, tirx.IntImm)
        for param in func.params
        for extent in getattr(param, "shape", ())
    )
