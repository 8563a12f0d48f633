"""Softmax as loop nests: its largest element may forget NaN, which the sum of exponentials keeps.

An exponential of NaN is NaN whatever was subtracted, so is the sum that it goes into, and with the
sum every element of the row.
"""

from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir.expr import Call, TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.loops import access, analysis, vector_loops
from hybridc.schedules.loops.analysis import Block

# What may make a number of NaN.
_CHOICES = (prim.Select, prim.Max, prim.Min)


def is_softmax(staged: PrimFunc) -> bool:
    """Whether NaN in a row makes all that is written of the row NaN by the sum alone."""
    found = analysis.blocks(staged)
    reduced = [block for block in found if block.reduction]
    kinds = [type(block.body.value) for block in reduced]
    if kinds != [prim.Max, prim.Add]:
        return False
    largest, total = reduced
    powers = [block for block in found if _exponents(block)]
    if len(powers) != 1 or len(_exponents(powers[0])) != 1:
        return False
    (power,) = powers
    summed = power is total or _is_load(total.body.value.b, power)
    rest = [block for block in found if not any(block is b for b in (largest, total, power))]
    return summed and _shifts_by(power, largest) and _keeps_nan(rest, total)


def forget_nan(func: PrimFunc) -> PrimFunc:
    """The function with maxima that are one instruction each, where they are collected."""

    def plain(store: Any) -> Any:
        value = store.value
        if not isinstance(value, prim.Max) or not isinstance(value.a, TensorLoad):
            return store
        if not value.a.source.same_as(store.buffer):
            return store
        chosen = tirx.Select(tirx.GT(value.a, value.b), value.a, value.b)
        return tirx.BufferStore(store.buffer, chosen, store.indices)

    return func.with_body(structural_map(func.body, (tirx.BufferStore, plain)))


def _exponents(block: Block) -> list[Any]:
    """What a block takes exponentials of."""
    found: list[Any] = []

    def visit(call: Any) -> None:
        if str(call.op.name) == "tirx.exp":
            found.append(call.args[0])

    structural_walk(block.body.value, (Call, visit))
    return found


def _is_load(value: Any, block: Block) -> bool:
    return isinstance(value, TensorLoad) and value.source.same_as(block.body.buffer)


def _shifts_by(power: Block, largest: Block) -> bool:
    """Whether what is subtracted is the largest of those that it is subtracted from."""
    (exponent,) = _exponents(power)
    if not isinstance(exponent, prim.Sub) or not _is_load(exponent.b, largest):
        return False
    indices = list(exponent.b.indices)
    left = [axis for axis in power.axes if not any(axis.same_as(index) for index in indices)]
    if len(left) != 1 or len(largest.reduction) != 1 or len(indices) != len(largest.spatial):
        return False
    values = dict(zip([*largest.spatial, *largest.reduction], [*indices, *left], strict=True))
    term = vector_loops.substitute(largest.body.value.b, values)
    return bool(tvm_ffi.structural_equal(term, exponent.a, map_free_vars=False))


def _keeps_nan(rest: list[Block], total: Block) -> bool:
    """Whether what is written is arithmetic of the sum."""
    known = [total.body.buffer]
    for block in rest:
        choices: list[Any] = []
        structural_walk(block.body.value, (_CHOICES, choices.append))
        calls: list[Any] = []
        structural_walk(block.body.value, (Call, calls.append))
        reads = [x for x in block.loads if any(x.source.same_as(each) for each in known)]
        if choices or any(map(access.conditional, calls)) or not reads:
            return False
        known.append(block.body.buffer)
    return bool(rest)
