"""Transposes: reads along one axis, writes along another."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler import strips
from hybridc.compiler.interfaces import (
    Match,
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import Target
from hybridc.schedules.loops import analysis, nests, pointwise, register_tiles, transforms

_LINE_BITS = 512


@dataclass(frozen=True)
class TransposeMatch(Match):
    """A transposing kernel, inlined into one block: `rows` is the axis along which it reads.

    `nest` is there where tiles of it can be shuffled in registers.
    """

    inlined: PrimFunc
    name: str
    rows: int | None
    tile: int
    threads: bool
    nest: nests.Nest | None


@dataclass(frozen=True)
class Transpose(ScheduleRule):
    """Elementwise kernels that read across memory: square tiles use whole cache lines."""

    priority: ClassVar[int] = 15

    def match(self, func: PrimFunc, target: Target) -> TransposeMatch | NotApplicable:
        """Take elementwise kernels whose output is contiguous along another axis than an input."""
        found = pointwise.one_nest(func)
        if isinstance(found, NotApplicable):
            return found
        inlined, block = found
        lanes = target.lanes(block.widest)
        # Tiles are addressed by how far they are from the first element.
        nest = None if strips.has_gaps(func) else nests.analyse(block, lanes)
        rows = _read_axis(block)
        if nest is None and rows is None:
            return NotApplicable("it reads along the axis that it writes along")
        tile = _LINE_BITS * lanes // target.vector_bits
        threads = analysis.worth_threads(inlined, target)
        return TransposeMatch(func, target, inlined, block.name, rows, tile, threads, nest)

    def knobs(self, match: TransposeMatch) -> Space:
        """The side of a square `tile`; `threads` or one thread."""
        return {"tile": (4, 8, 16, 32, 64), "threads": (0, 1)}

    def default(self, match: TransposeMatch, target: Target) -> Point:
        """Tiles as wide as a cache line."""
        return {"tile": min(match.tile, 64), "threads": int(match.threads)}

    def schedule(self, match: TransposeMatch, point: Point) -> Schedule:
        """Tiles outside; inside, vectors along the writes, shuffled where that fits."""
        if match.nest is not None:
            rows, threads = max(1, point["tile"] // match.nest.height), bool(point["threads"])
            return transforms.new_schedule(
                register_tiles.schedule(match.inlined, match.nest, rows, threads)
            )
        schedule = transforms.new_schedule(match.inlined)
        block = schedule.get_sblock(match.name)
        loops = schedule.get_loops(block)
        info = transforms.info(schedule, block)
        rows, row = schedule.split(loops[match.rows], [None, point["tile"]])
        native = match.target.lanes(info.widest)
        extent, divisor = list(info.spatial.values())[-1], info.divisor(list(info.spatial)[-1])
        lanes = analysis.best_lanes(extent, divisor, min(native, point["tile"]))
        columns = transforms.vectorize(schedule, loops[-1], lanes)
        others = [loop for i, loop in enumerate(loops[:-1]) if i != match.rows]
        lane = schedule.get_loops(block)[-1:] if lanes > 1 else []
        schedule.reorder(*others, rows, columns, row, *lane)
        if point["threads"]:
            schedule.parallel(schedule.fuse(*others, rows))
        return transforms.finish(schedule)


def _read_axis(block: analysis.Block) -> int | None:
    """The position of the axis along which an input is contiguous, where it is not the last."""
    axes = list(block.spatial)
    for load in block.loads:
        strides: list[Any] = [block.stride(load, axis) for axis in axes]
        if strides[-1] not in (0, 1) and 1 in strides[:-1]:
            return strides.index(1)
    return None
