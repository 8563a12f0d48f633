"""Kernels of row stages whose rows are short, with a lane for each row."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import Match
from hybridc.schedules.loops import access, vector_loops
from hybridc.schedules.loops.analysis import Block

Expr = Any  # tvm.ir.Expr
Statement = Any  # tvm.tirx.Stmt
Var = Any  # tvm.ir.expr.Var

# What of a row an access is of: each element, one number for the row, or the same for all rows.
ELEMENT, ROW, SAME = "element", "row", "same"
# Types of which vectors are turned.
_TYPES = ("float32", "int32")


@dataclass(frozen=True)
class Stage:
    """A block as a loop over the `column` of each row, reduced or not; None if it has one."""

    block: Block
    rows: tuple[Var, ...]
    column: Var | None
    reduced: bool

    @classmethod
    def of(cls, block: Block, rows: Sequence[int], length: int) -> "Stage | None":
        """The stage that a block is, for rows with these extents; None if it is none."""
        spatial = [(axis, extent) for axis, extent in block.spatial.items() if extent > 1]
        reduced = [(axis, extent) for axis, extent in block.reduction.items() if extent > 1]
        extents = [extent for _, extent in (*spatial, *reduced)]
        if len(reduced) > 1 or extents not in ([*rows], [*rows, length]):
            return None
        if block.reduction and not reduced:
            return None
        axes = [axis for axis, _ in (*spatial, *reduced)]
        column = axes[len(rows)] if len(axes) > len(rows) else None
        return cls(block, tuple(axes[: len(rows)]), column, bool(reduced))

    def part(self, indices: Any, buffer: Any, length: int) -> str | None:
        """What of a row is accessed; None if that is none of the three."""
        steps = [access.stride(indices, buffer, axis) for axis in self.rows]
        across = 0 if self.column is None else access.stride(indices, buffer, self.column)
        if None in (across, *steps):
            return None
        if not any(steps):
            return SAME
        extents = [self.block.spatial[axis] for axis in self.rows]
        apart = [steps[-1] * prod(extents[i + 1 :]) for i in range(len(extents))]  # type: ignore[operator]
        if steps != apart or self._start(indices, buffer) != 0:
            return None
        return {(length, 1): ELEMENT, (1, 0): ROW}.get((steps[-1], across))  # type: ignore[arg-type]

    def _start(self, indices: Any, buffer: Any) -> int | None:
        """Where an access begins."""
        zero = {axis: tirx.const(0, str(axis.ty.dtype)) for axis in self.block.axes}
        found = access.simplify(vector_loops.substitute(access.distance(indices, buffer), zero))
        return int(found) if isinstance(found, tirx.IntImm) else None


@dataclass(frozen=True)
class Turned(Match):
    """A kernel of `stages`, the last of which writes the output; rows have `length` elements.

    A kernel that `forgets` has maxima that need not know of NaN.
    """

    stages: tuple[Stage, ...]
    count: int
    length: int
    threads: bool
    forgets: bool = False

    @property
    def lanes(self) -> int:
        """The rows side by side."""
        return self.target.lanes()

    @cached_property
    def inner(self) -> list[Any]:
        """The buffers between the stages."""
        return [stage.block.body.buffer for stage in self.stages[:-1]]

    def part(self, stage: Stage, load: Any) -> str | None:
        """What of a row is loaded."""
        return stage.part(load.indices, load.source, self.length)

    def stored(self, stage: Stage) -> str | None:
        """What of a row a stage stores."""
        return stage.part(stage.block.body.indices, stage.block.body.buffer, self.length)

    def loads(self) -> Iterator[tuple[Stage, Any]]:
        """The loads of all stages."""
        for stage in self.stages:
            for load in stage.block.loads:
                yield stage, load

    @cached_property
    def given(self) -> list[Any]:
        """The parameters of which each element is read, which are turned."""
        found: list[Any] = []
        for stage, load in self.loads():
            own = any(load.source.same_as(each) for each in (*self.inner, *found))
            if not own and self.part(stage, load) == ELEMENT:
                found.append(load.source)
        return found

    @property
    def is_norm(self) -> bool:
        """Whether rows are written that sums were taken of."""
        values = [stage.block.body.value for stage in self.stages if stage.reduced]
        sums = all(isinstance(value, prim.Add) for value in values)
        return sums and self.stored(self.stages[-1]) == ELEMENT

    @property
    def is_written(self) -> bool:
        """Whether lanes can stand for rows in every access and in what is computed."""
        known = all(self.part(stage, load) for stage, load in self.loads())
        stored = [self.stored(stage) for stage in self.stages]
        turned = [str(buffer.dtype) for buffer in self.given]
        output = self.stages[-1].block.body.buffer
        if stored[-1] == ELEMENT:
            turned.append(str(output.dtype))
        return (
            known
            and None not in stored
            and SAME not in stored
            and all(dtype in _TYPES for dtype in turned)
            and not any(map(_counts_rows, self.stages))
        )


def _counts_rows(stage: Stage) -> bool:
    """Whether a stage computes with the number of a row, not only with what it loads."""
    store = stage.block.body
    if any(access.uses(inner, axis) for inner in _nested(store) for axis in stage.rows):
        return True
    zero = structural_map(store.value, (TensorLoad, lambda load: tirx.const(0, str(load.ty.dtype))))
    return any(access.uses(zero, axis) for axis in stage.rows)


def _nested(store: Any) -> list[Any]:
    """Loads in the indices of loads."""
    found: list[Any] = []

    def visit(load: Any) -> None:
        for index in load.indices:
            structural_walk(index, (TensorLoad, found.append))

    structural_walk(store.value, (TensorLoad, visit))
    return found
