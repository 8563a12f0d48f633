"""Transposing loop nests whose every access moves by constant strides.

Axes of such a nest can be merged, and tiles of it may begin anywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm
from tvm import sym, tirx
from tvm.ir.expr import Call, TensorLoad
from tvm_ffi import structural_map, structural_walk

from hybridc.schedules.loops import access, analysis

Expr = Any  # tvm.ir.Expr

# Rows and lanes of a square tile, by the bits of an element: 8 loads, 24 shuffles of two vectors,
# 8 stores in 16 registers.  Bytes fill 16 registers of 128 bits, and 8 of 32 bits those of 256.
# Of 64 bits 8 are two registers each, but whole lines of the cache: 2048 x 2048 take 3.6 ms so, and
# 4.1 ms in tiles of 4 (Zen 3).
_SIDES = MappingProxyType({8: (16, 8), 16: (8,), 32: (8,), 64: (8, 4)})
# Pixels with up to as many channels are parted and joined by shuffles of as many vectors.
_FEW = 4
# Lanes of the vectors that these shuffles take at most; more would only make more code.
_LANES = 16
_TYPES = frozenset(
    {f"{kind}{bits}" for kind in ("int", "uint", "float") for bits in (8, 16, 32, 64)}
)


@dataclass(frozen=True)
class Axis:
    """An axis of the nest: how far one step on it moves the store, and each load, in elements."""

    extent: int
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Nest:
    """`axes` in the order of the output; `start` is where the store and the loads begin.

    `rows` is the position of the axis along which the `crossing` loads (their indices) are
    contiguous; the last axis is the one along which the store is.  `few` tells which of the two
    is a few channels of each pixel: "in", "out" or neither.
    """

    block: analysis.Block
    axes: tuple[Axis, ...]
    start: tuple[int, ...]
    loads: tuple[Any, ...]
    rows: int
    crossing: tuple[int, ...]
    few: str
    lanes: int

    @property
    def height(self) -> int:
        """The rows of a tile."""
        return {"": self.lanes, "out": self.lanes, "in": self.axes[self.rows].extent}[self.few]

    @property
    def width(self) -> int:
        """The columns of a tile."""
        return {"": self.lanes, "out": self.axes[-1].extent, "in": self.lanes}[self.few]


def analyse(block: analysis.Block, lanes: int) -> Nest | None:
    """The nest of a transposing block; None if tiles of it do not fit registers."""
    block = _split(block)
    loads = tuple(block.loads)
    if not loads or not _straight(block):
        return None
    axes = list(block.spatial)
    accesses = [(block.body.indices, block.body.buffer), *((x.indices, x.source) for x in loads)]
    found = [_linear(indices, buffer, axes) for indices, buffer in accesses]
    moves = [move for move in found if move is not None]
    if len(moves) < len(found):
        return None
    steps = tuple(zip(*(move[:-1] for move in moves), strict=True))
    extents = [Axis(e, s) for e, s in zip(block.spatial.values(), steps, strict=True) if e > 1]
    start = tuple(move[-1] for move in moves)
    return _with_rows(Nest(block, _merged(extents), start, loads, 0, (), "", min(lanes, _LANES)))


def _split(block: analysis.Block) -> analysis.Block:
    """The block with axes parted where its indices divide them, as reshapes leave them."""
    while (found := _divided(block)) is not None:
        block = _parted(block, *found)
    return block


def _parted(block: analysis.Block, axis: Any, inner: int) -> analysis.Block:
    """The block with `axis` as two, of which the inner one has this extent."""
    outer, lower = (tirx.Var(f"{axis.name}_{i}", axis.ty) for i in range(2))
    spatial: dict[Any, int] = {}
    for var, extent in block.spatial.items():
        spatial |= {outer: extent // inner, lower: inner} if var.same_as(axis) else {var: extent}
    analyzer = sym.Analyzer()
    for var, extent in spatial.items():
        zero, count = (tirx.const(value, str(var.ty.dtype)) for value in (0, extent))
        analyzer.bind(var, tvm.ir.Range(zero, count))
    whole = outer * inner + lower
    body = structural_map(block.body, (type(axis), lambda v: whole if v.same_as(axis) else v))
    body = structural_map(body, (access.DIVISIONS, analyzer.simplify))
    return replace(block, body=body, spatial=spatial)


def _divided(block: analysis.Block) -> tuple[Any, int] | None:
    """An axis that is divided by a divisor of its extent, and the largest such divisor."""
    found: list[tuple[Any, int]] = []

    def visit(node: Any) -> None:
        for axis in block.spatial:
            if node.a.same_as(axis) and isinstance(node.b, tirx.IntImm):
                found.append((axis, int(node.b)))

    structural_walk(block.body, (access.DIVISIONS, visit))
    even = [
        (axis, divisor)
        for axis, divisor in found
        if 1 < divisor < block.spatial[axis] and block.spatial[axis] % divisor == 0
    ]
    return max(even, key=lambda pair: pair[1], default=None)


def _straight(block: analysis.Block) -> bool:
    """Whether a block computes from its loads alone, in types of whole bytes, without branches."""
    types = {str(x.ty.dtype) for x in block.loads} | {str(block.body.buffer.dtype)}
    calls: list[Any] = []
    structural_walk(block.body.value, (Call, calls.append))
    zero = {x: tirx.const(0, str(x.ty.dtype)) for x in block.loads}
    rest = structural_map(block.body.value, (TensorLoad, lambda x: zero.get(x, x)))
    return (
        types <= _TYPES
        and not any(access.conditional(call) for call in calls)
        and not any(access.uses(rest, axis) for axis in block.spatial)
    )


def _linear(indices: Any, buffer: Any, axes: Sequence[Any]) -> tuple[int, ...] | None:
    """How an access moves in its buffer with each axis, and where it starts."""
    total, scale = [0] * (len(axes) + 1), 1
    for index, extent in zip(reversed(indices), reversed(buffer.shape), strict=True):
        # One by one: to the sum of all, wider than its parts, TVM finds no equation.
        found = [access.simplify(x) for x in sym.detect_linear_equation(index, list(axes))]
        if not found or not all(isinstance(part, tirx.IntImm) for part in found):
            return None
        if not scale and any(int(part) for part in found):
            return None  # behind an axis of open size
        total = [sum_ + int(part) * scale for sum_, part in zip(total, found, strict=True)]
        scale *= int(extent) if isinstance(extent, tirx.IntImm) else 0
    return tuple(total)


def _merged(axes: Sequence[Axis]) -> tuple[Axis, ...]:
    """Neighbouring axes as one wherever all accesses step over them evenly."""
    merged: list[Axis] = []
    for axis in axes:
        if merged and merged[-1].steps == tuple(step * axis.extent for step in axis.steps):
            merged.append(Axis(merged.pop().extent * axis.extent, axis.steps))
        else:
            merged.append(axis)
    return tuple(merged)


def _with_rows(nest: Nest) -> Nest | None:
    """Find the axis that the loads run along, and whether tiles fit it and the last one."""
    if len(nest.axes) < 2 or nest.axes[-1].steps[0] != 1:
        return None
    last = nest.axes[-1]
    crossing = tuple(i for i in range(len(nest.loads)) if last.steps[i + 1] not in (0, 1))
    along = [
        position
        for position, axis in enumerate(nest.axes[:-1])
        if crossing and all(axis.steps[i + 1] == 1 for i in crossing)
    ]
    if not along:
        return None
    nest = replace(nest, rows=along[-1], crossing=crossing)
    rows = nest.axes[nest.rows]
    side = _side(nest, min(rows.extent, last.extent))
    if side:
        return replace(nest, lanes=side)
    if last.extent <= _FEW and rows.extent >= nest.lanes and _contiguous(nest):
        return replace(nest, few="out")
    joined = all(last.steps[i + 1] == rows.extent for i in crossing)
    if rows.extent <= _FEW and last.extent >= nest.lanes and joined:
        return replace(nest, few="in")
    return None


def _side(nest: Nest, extent: int) -> int:
    """The side of a square tile: the largest that the extents hold; 0 if none fits them."""
    widest = max(np.dtype(str(nest.loads[i].ty.dtype)).itemsize * 8 for i in nest.crossing)
    return next((side for side in _SIDES[widest] if side <= extent), 0)


def _contiguous(nest: Nest) -> bool:
    """Whether pixels with few channels are written, and what else is read, in one stretch."""
    last, rows = nest.axes[-1], nest.axes[nest.rows]
    others = [0, *(i + 1 for i in range(len(nest.loads)) if i not in nest.crossing)]
    return all(last.steps[i] == 1 and rows.steps[i] == last.extent for i in others)
