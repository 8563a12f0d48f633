"""Neighbouring axes as one, where every access steps over them evenly.

Fused loops would do where the innermost extents are whole vectors; of others, TVM cannot tell that
the quotients and remainders which fusing leaves name neighbours in memory, and loads lane by lane.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map

from hybridc.compiler import strips
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.loops import access, analysis, vector_loops

Statement = Any  # tvm.tirx.Stmt
Var = Any  # tvm.ir.expr.Var


def collapsed(func: PrimFunc, target: Target) -> PrimFunc:
    """The function with one axis for the last axes of each block that memory has as one.

    Only of blocks between parameters whose last axis is no whole number of vectors: elements are
    addressed by how far they are from the first, and no argument can become a part of a larger one.
    """
    if strips.has_gaps(func):
        return func
    root = func.body.block
    nests = list(root.body.seq) if isinstance(root.body, tirx.SeqStmt) else [root.body]
    made = [_nest(nest, func, target) for nest in nests]
    if all(new.same_as(old) for new, old in zip(made, nests, strict=True)):
        return func
    body = tirx.SeqStmt(made) if len(made) > 1 else made[0]
    return func.with_body(vector_loops.replaced(func.body, body, root.iter_vars))


def _nest(nest: Statement, func: PrimFunc, target: Target) -> Statement:
    """One nest of loops, collapsed where that is possible."""
    loops: list[Any] = []
    inner = nest
    while isinstance(inner, tirx.For):
        loops.append(inner)
        inner = inner.body
    if not isinstance(inner, s_tir.SBlockRealize) or not loops:
        return nest
    block = analysis.describe(inner.block, inner.iter_values)
    bound = [loop.loop_var for loop in loops]
    in_order = len(bound) == len(inner.iter_values) and all(
        value.same_as(var) for value, var in zip(inner.iter_values, bound, strict=True)
    )
    if not block.plain or block.reduction or not in_order or not _on_parameters(block, func):
        return nest
    group = analysis.collapsible(block, tuple(block.spatial))
    even = block.spatial[group[-1]] % target.lanes(block.widest) == 0
    if even or len(group) == 1 or any(access.uses(_without_loads(block), x) for x in group):
        return nest
    return _merged(loops, inner, block, group)


def _on_parameters(block: analysis.Block, func: PrimFunc) -> bool:
    used = [*(load.source for load in block.loads), block.body.buffer]
    return all(any(buffer.same_as(param) for param in func.params) for buffer in used)


def _without_loads(block: analysis.Block) -> Any:
    """What a block computes, with a number for each load."""
    return structural_map(
        block.body.value, (TensorLoad, lambda load: tirx.const(0, str(load.ty.dtype)))
    )


def _merged(
    loops: Sequence[Any], realize: Any, block: analysis.Block, group: Sequence[Var]
) -> Statement:
    """The nest with one loop, and one axis of the block, for the axes of a group."""
    first, *_ = group
    outer = loops[: -len(group)]
    dtype = str(first.ty.dtype)
    size = tirx.const(prod(block.spatial[axis] for axis in group), dtype)
    zero = tirx.const(0, dtype)
    axis, counter = (tirx.Var(name, first.ty) for name in ("flat", "i"))
    still = {each: zero for each in group}

    def place(indices: Any, buffer: Any) -> list[Any]:
        step = access.stride(indices, buffer, group[-1])
        flat: Any = axis * step
        scale: Any = 1
        for index, extent in zip(reversed(indices), reversed(buffer.shape), strict=True):
            flat += vector_loops.substitute(index, still) * scale
            scale *= int(extent) if isinstance(extent, tirx.IntImm) else extent  # an open size
        return [*[zero] * (len(buffer.shape) - 1), access.simplify(flat)]

    def load(node: Any) -> Any:
        if not node.indices:
            return node  # one number has no place
        return tirx.BufferLoad(node.source, place(node.indices, node.source))

    store = block.body
    value = structural_map(store.value, (TensorLoad, load))
    body = tirx.BufferStore(store.buffer, value, place(store.indices, store.buffer))
    axes = [
        *realize.block.iter_vars[: len(outer)],
        tirx.IterVar(tvm.ir.Range(zero, size), axis, tirx.IterVar.DataPar),
    ]
    values = [*realize.iter_values[: len(outer)], counter]
    # A block that names no regions tells others that it counts in flat addresses.
    node = s_tir.SBlock(axes, [], [], realize.block.name_hint, body)
    made: Statement = s_tir.SBlockRealize(values, realize.predicate, node)
    made = tirx.For(counter, zero, size, tirx.ForKind.SERIAL, made)
    for loop in reversed(outer):
        made = tirx.For(loop.loop_var, loop.min, loop.extent, loop.kind, made)
    return made
