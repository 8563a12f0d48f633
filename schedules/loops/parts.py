"""Rows in parts, within each of which the same conditions hold.

What is joined or padded along memory chooses between several loads for each element.  No vector
holds elements of two parts, so a loop for each part needs no choice, and vectors of any length fit.
"""

from itertools import pairwise
from typing import Any

from tvm import tirx
from tvm.ir.expr import Call, TensorLoad
from tvm_ffi import structural_map, structural_walk

from hybridc.schedules.loops import access, analysis, statements, vector_loops
from hybridc.schedules.loops.statements import number_like

Var = Any  # tvm.ir.expr.Var

# Marks the loop over elements of a row that is done in parts; the value is the lanes of a vector.
PARTS = "hybridc.parts"
# Parts of a row, at most: each is code of its own.
_MOST = 8


def pay(block: analysis.Block, var: Var) -> bool:
    """Whether the block chooses along an axis, between few parts of it."""
    found = _limits(block.body, var, block.spatial[var])
    return 0 < len(found) < _MOST


def parted(body: Any) -> Any:
    """Rewrite a scheduled function's body: a loop for each part of the rows that are marked."""
    return structural_map(body, (tirx.For, _in_parts))


def _in_parts(loop: Any) -> Any:
    if not isinstance(loop, tirx.For) or PARTS not in loop.annotations:
        return loop
    realize = loop.body
    (var,) = (
        axis.var
        for axis, value in zip(realize.block.iter_vars, realize.iter_values, strict=True)
        if value.same_as(loop.loop_var)
    )
    limits = [0, *_limits(realize.block.body, var, int(loop.extent)), int(loop.extent)]
    return statements.sequence([_part(loop, var, *ends) for ends in pairwise(limits)])


def _part(loop: Any, var: Var, begin: int, end: int) -> Any:
    """The loop over the elements from `begin` to before `end`, of which comparisons are known."""

    def decide(node: Any) -> Any:
        limit = access.boundary(node, var)
        if limit is None or begin < limit.at < end:  # a value that is chosen, not a load
            return node
        return tirx.const((begin < limit.at) == limit.below, "bool")

    realize, count = loop.body, end - begin
    body = access.decided(realize.block.body, decide)
    known = vector_loops.replaced(realize, body, realize.block.iter_vars)
    # A short stretch of memory is no worse backwards; a long one is turned by LLVM.
    lanes = min(count, int(loop.annotations[PARTS]))
    if count > lanes and not _in_order(body, var):
        lanes = 1
    kind = loop.kind if count * _MOST >= int(loop.extent) else tirx.ForKind.SERIAL

    def vectors(first: int, number: int, width: int) -> Any:
        vector, lane = (tirx.Var(name, loop.loop_var.ty) for name in ("v", "lane"))
        size = number_like(width, lane)
        place = vector * size + lane + number_like(first, lane)
        made = vector_loops.copied(known, {loop.loop_var: place})
        made = tirx.For(lane, number_like(0, lane), size, tirx.ForKind.VECTORIZED, made)
        return statements.loop(vector, number_like(number, vector), made, kind)

    # None is computed twice: TVM may give the result the memory of what it is computed from.
    whole, rest = divmod(count, lanes)
    last = [vectors(end - rest, 1, rest)] if rest else []
    return statements.sequence([vectors(begin, whole, lanes), *last])


def _in_order(body: Any, var: Var) -> bool:
    """Whether neighbours along an axis are read as neighbours in memory, or all one element."""
    found: list[Any] = []
    structural_walk(body, (TensorLoad, found.append))
    return all(access.stride(load.indices, load.source, var) in (0, 1) for load in found)


def _limits(body: Any, var: Var, extent: int) -> list[int]:
    """Where in a row conditions change."""
    found: set[int] = set()

    def visit(node: Any) -> None:
        for comparison in access.comparisons(node.args[0]) if access.conditional(node) else ():
            limit = access.boundary(comparison, var)
            if limit is not None and 0 < limit.at < extent:
                found.add(limit.at)

    structural_walk(body, (Call, visit))
    return sorted(found)
