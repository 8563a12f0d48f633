"""Loops over neighbouring vectors of bytes made one loop over a longer vector."""

from typing import Any

import numpy as np
import tvm
from tvm import sym, tirx
from tvm.s_tir import SBlockRealize
from tvm_ffi import structural_map, structural_walk

# Bytes of a vector, at most: a register of 256 bits.
_MOST = 32


def joined(body: Any) -> Any:
    """Join an unrolled loop with the vectorised one in it where these store bytes in a row.

    What is computed takes as many instructions, but the results of two or four vectors are packed
    and stored as one.
    """
    return structural_map(body, (tirx.For, _joined))


def _joined(loop: Any) -> Any:
    inner = loop.body
    if int(loop.kind) != tirx.ForKind.UNROLLED or not isinstance(inner, tirx.For):
        return loop
    if int(inner.kind) != tirx.ForKind.VECTORIZED or not isinstance(inner.body, SBlockRealize):
        return loop
    if not isinstance(loop.extent, tirx.IntImm):
        return loop
    count, lanes = int(loop.extent), int(inner.extent)
    realize = inner.body
    if count & (count - 1) or count * lanes > _MOST or not _stores_bytes(realize):
        return loop
    if not isinstance(realize.predicate, tirx.IntImm):
        return loop
    return _as_one(loop, inner, realize, count * lanes)


def _stores_bytes(realize: Any) -> bool:
    store = realize.block.body
    if not isinstance(store, tirx.BufferStore):
        return False
    return np.dtype(str(store.buffer.dtype)).itemsize == 1


def _as_one(loop: Any, inner: Any, realize: Any, lanes: int) -> Any:
    """One vectorised loop, unless its variable would be in a division."""
    var = tirx.Var(inner.loop_var.name, inner.loop_var.ty)
    zero, width, extent = (
        tirx.const(number, str(var.ty.dtype)) for number in (0, int(inner.extent), lanes)
    )
    values = {loop.loop_var: var // width, inner.loop_var: var % width}
    analyzer = sym.Analyzer()
    analyzer.bind(var, tvm.ir.Range.from_min_extent(zero, extent))

    def placed(value: Any) -> Any:
        moved = structural_map(value, (type(var), lambda old: values.get(old, old)))
        return analyzer.simplify(moved)

    bound = [placed(value) for value in realize.iter_values]
    if any(_divided(value, var) for value in bound):
        return loop
    body = SBlockRealize(bound, realize.predicate, realize.block)
    return tirx.For(var, zero, extent, tirx.ForKind.VECTORIZED, body, None, loop.annotations)


def _divided(value: Any, var: Any) -> bool:
    """Whether a variable is in a division, or what is left of one."""
    found: list[Any] = []
    structural_walk(value, ((tirx.FloorDiv, tirx.FloorMod), found.append))
    names: list[Any] = []
    for division in found:
        structural_walk(division, (type(var), names.append))
    return any(name.same_as(var) for name in names)
