"""Which vectors a thread may load and store: aligned, contiguous, without a choice among lanes."""

from collections.abc import Sequence
from typing import Any

from tvm.ir import Op
from tvm.ir.expr import Call
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_walk

from hybridc.schedules.loops import access

# Types of which CUDA code generation makes vectors that compute as their elements do.
_TYPES = frozenset({"float32", "float16", "bfloat16", "int32", "uint8", "int8"})
_CHOICES = (prim.Select, *access.COMPARISONS)


def at_once(store: Any, accesses: Sequence[tuple[Any, Any]], axis: Any, length: int) -> bool:
    """Whether a store is one vector along an axis, and each of its loads too, or of one element."""
    return (
        _alike(store, [buffer for _, buffer in accesses], store.buffer)
        and access.stride(store.indices, store.buffer, axis) == 1
        and _aligned([*accesses, (store.indices, store.buffer)], axis, length)
    )


def moved(store: Any, accesses: Sequence[tuple[Any, Any]], axis: Any, length: int) -> bool:
    """Whether memory can be accessed so, whatever is computed in between element by element."""
    conditional: list[Any] = []
    structural_walk(
        store.value,
        (Call, lambda node: conditional.append(node) if access.conditional(node) else None),
    )
    buffers = [store.buffer, *(buffer for _, buffer in accesses)]
    return (
        not conditional
        and {str(buffer.dtype) for buffer in buffers} <= _TYPES
        and access.stride(store.indices, store.buffer, axis) == 1
        and _aligned([*accesses, (store.indices, store.buffer)], axis, length)
    )


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


def _aligned(accesses: Sequence[tuple[Any, Any]], axis: Any, length: int) -> bool:
    for indices, buffer in accesses:
        step = access.stride(indices, buffer, axis)
        if step == 1 and not access.aligned(indices, buffer, axis, length):
            return False
        if step is None:
            return False
    return True
