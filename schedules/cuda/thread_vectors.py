"""Which vectors a thread may load and store: aligned, contiguous, without a choice among lanes."""

from collections.abc import Sequence
from typing import Any

from tvm.ir import Op
from tvm.ir.expr import Call
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_walk

from hybridc.schedules.loops import access
from hybridc.schedules.loops.analysis import Block

MOST_BYTES = 16  # the widest access of one thread
# Types of which CUDA code generation makes vectors that compute as their elements do.
_TYPES = frozenset({"float32", "float16", "bfloat16", "int32", "uint8", "int8"})
_CHOICES = (prim.Select, *access.COMPARISONS)


def widest(block: Block) -> int:
    """Elements that a thread may compute at once, along the block's last axis."""
    return max(choices(block))


def choices(block: Block) -> tuple[int, ...]:
    """The vector lengths that are legal along the block's last axis, 1 among them."""
    axis, extent = list(block.spatial.items())[-1]
    if not _computes_alike(block):
        return (1,)
    most = MOST_BYTES // _bytes(block.widest)
    divisor = block.divisor(axis)
    lengths = [length for length in (8, 4, 2) if length <= most and extent % length == 0]
    return tuple(
        length
        for length in (1, *reversed(lengths))
        if length == 1 or (divisor % length == 0 and _accessible(block, axis, length))
    )


def at_once(store: Any, accesses: Sequence[tuple[Any, Any]], axis: Any, length: int) -> bool:
    """Whether a store is one vector along an axis, and each of its loads too, or of one element."""
    return (
        _alike(store, [buffer for _, buffer in accesses], store.buffer)
        and access.stride(store.indices, store.buffer, axis) == 1
        and _aligned([*accesses, (store.indices, store.buffer)], axis, length)
    )


def _computes_alike(block: Block) -> bool:
    """Whether the body is free of choices, and of functions and types that have no vectors."""
    return _alike(block.body, [load.source for load in block.loads], block.writes[0])


def _alike(body: Any, sources: Sequence[Any], output: Any) -> bool:
    types = {str(buffer.dtype) for buffer in (*sources, output)}
    found: list[Any] = []

    def call(node: Any) -> None:
        # What has no vectors TVM computes in a loop of each thread, whose accesses are far apart.
        if access.conditional(node) or not _has_vectors(node.op):
            found.append(node)

    structural_walk(body, [(Call, call), (_CHOICES, found.append)])
    structural_walk(body, (prim.Cast, lambda node: types.add(str(node.ty.dtype))))
    integers = {"int64"}  # of indices
    return not found and types <= _TYPES | integers and str(output.dtype) in _TYPES


def _has_vectors(function: Any) -> bool:
    return isinstance(function, Op) and bool(function.get_attr("TVectorizable"))


def _accessible(block: Block, axis: Any, length: int) -> bool:
    """Whether every access is one element for all lanes, or one aligned vector."""
    if block.store_stride(axis) != 1:
        return False
    accesses = [(load.indices, load.source) for load in block.loads]
    return _aligned([*accesses, (block.body.indices, block.body.buffer)], axis, length)


def _aligned(accesses: Sequence[tuple[Any, Any]], axis: Any, length: int) -> bool:
    for indices, buffer in accesses:
        step = access.stride(indices, buffer, axis)
        if step == 1 and not access.aligned(indices, buffer, axis, length):
            return False
        if step is None:
            return False
    return True


def _bytes(dtype: str) -> int:
    return max(1, int("".join(c for c in dtype if c.isdigit()) or 8) // 8)
