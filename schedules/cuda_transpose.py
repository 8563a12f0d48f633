"""Transposes on a GPU: tiles through shared memory, so that reads and writes are contiguous."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.cuda.gpu import WARP
from hybridc.compiler.interfaces import (
    Match,
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules.loops import access, pointwise, transforms
from hybridc.schedules.loops.analysis import Block

# A tile is as wide as a warp both ways: a column more keeps its columns in different banks.
_TILE, _PAD = WARP, 1


@dataclass(frozen=True)
class TransposeMatch(Match):
    """A transposing kernel in one block: what it reads across, and the axis along which it does."""

    inlined: PrimFunc
    name: str
    source: int
    axis: int


@dataclass(frozen=True)
class CudaTranspose(ScheduleRule):
    """Elementwise kernels that read across memory: square tiles pass through shared memory."""

    priority: ClassVar[int] = 15
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> TransposeMatch | NotApplicable:
        """Take elementwise kernels whose output is contiguous along another axis than an input."""
        found = pointwise.one_nest(func)
        if isinstance(found, NotApplicable):
            return found
        inlined, block = found
        across = _across(block)
        if across is None:
            return NotApplicable("it reads along the axis that it writes along")
        return TransposeMatch(func, target, inlined, block.name, *across)

    def knobs(self, match: TransposeMatch) -> Space:
        """`rows` of threads for a tile; each thread moves 32 / rows elements."""
        return {"rows": (4, 8, 16)}

    def default(self, match: TransposeMatch, target: Target) -> Point:
        """256 threads."""
        return {"rows": 8}

    def schedule(self, match: TransposeMatch, point: Point) -> Schedule:
        """Tiles over blocks; a warp reads a row of a tile and writes a column."""
        schedule = transforms.new_schedule(match.inlined)
        block = schedule.get_sblock(match.name)
        loops = schedule.get_loops(block)
        others = [loop for i, loop in enumerate(loops[:-1]) if i != match.axis]
        down, row = schedule.split(loops[match.axis], [None, _TILE])
        right, column = schedule.split(loops[-1], [None, _TILE])
        schedule.reorder(*others, down, right, row, column)
        at = schedule.fuse(*others, down, right)
        schedule.bind(at, "blockIdx.x")
        tile = schedule.cache_read(block, match.source, "shared")
        schedule.compute_at(tile, at, preserve_unit_loops=True)
        _, thread = schedule.split(row, [None, point["rows"]])
        schedule.bind(thread, "threadIdx.y")
        schedule.bind(column, "threadIdx.x")
        inner = schedule.get_loops(tile)[1:]
        _, lane = schedule.split(inner[-1], [None, _TILE])
        schedule.bind(lane, "threadIdx.x")
        _, thread = schedule.split(schedule.fuse(*inner[:-1]), [None, point["rows"]])
        schedule.bind(thread, "threadIdx.y")
        schedule.storage_align(tile, 0, -2, _TILE, _PAD)
        return schedule


def _across(block: Block) -> tuple[int, int] | None:
    """Which of the block's reads is contiguous along another axis than the last, and that axis.

    Reads under a condition stay where they are: what they read must not be read without it.
    """
    axes = list(block.spatial)
    if len(axes) < 2:
        return None
    guarded = access.guarded(block.body)
    sources = [region.source for region in block.node.reads]
    for load in block.loads:
        strides = [block.stride(load, axis) for axis in axes]
        wide = len(load.source.shape) > 1 and all(step is not None for step in strides)
        if not wide or strides[-1] in (0, 1) or 1 not in strides[:-1]:
            continue
        position = next(i for i, source in enumerate(sources) if source.same_as(load.source))
        once = sum(1 for other in block.loads if other.source.same_as(load.source)) == 1
        if once and not any(other.same_as(load) for other in guarded):
            return position, strides.index(1)
    return None
