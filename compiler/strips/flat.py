"""Strips that are one parallel loop each, whose turns can be those of a loop over all strips."""

from typing import Any

from tvm import s_tir, tirx
from tvm_ffi import structural_map, structural_walk

Statement = Any  # tvm.tirx.Stmt


def turns_of(body: Statement) -> int | None:
    """The turns of the parallel loop that a strip consists of; None if it is anything else."""
    loop = _outermost(body)
    if not isinstance(loop, tirx.For) or loop.kind != tirx.ForKind.PARALLEL or loop.annotations:
        return None
    found: list[Any] = []
    structural_walk(loop.body, (tirx.For, lambda each: found.append(each.kind)))
    known = isinstance(loop.extent, tirx.IntImm) and isinstance(loop.min, tirx.IntImm)
    if not known or int(loop.min) or tirx.ForKind.PARALLEL in found:
        return None
    return int(loop.extent)


def as_turn(body: Statement, turn: Any) -> Statement:
    """A strip's statement as one turn of its loop does it."""
    loop = _outermost(body)
    own = loop.loop_var
    place = tirx.Cast(str(own.ty.dtype), turn) if str(own.ty.dtype) != "int64" else turn
    done = structural_map(loop.body, (tirx.Var, lambda var: place if var.same_as(own) else var))
    return _replaced(body, done)


def _outermost(body: Statement) -> Statement:
    while isinstance(body, s_tir.SBlockRealize) and not body.iter_values:
        body = body.block.body
    return body


def _replaced(body: Statement, inner: Statement) -> Statement:
    """The blocks of a strip around another statement."""
    if not isinstance(body, s_tir.SBlockRealize):
        return inner
    block = body.block
    made = s_tir.SBlock(
        [],
        block.reads,
        block.writes,
        block.name_hint,
        _replaced(block.body, inner),
        block.init,
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )
    return s_tir.SBlockRealize([], body.predicate, made)
