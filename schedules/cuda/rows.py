"""Kernels of row stages on a GPU: reductions, softmax, normalisations.

A group of threads computes a row, or a tile of neighbouring rows where those are contiguous; what
passes between the stages lies in shared memory.  Sums and maxima are combined by shuffles within a
warp and through shared memory between warps, which TVM's lowering generates.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from hybridc.compiler.cuda.gpu import MOST_THREADS, WARP
from hybridc.compiler.interfaces import Match, NotApplicable, Point, PrimFunc, Schedule, Space
from hybridc.compiler.target import Target
from hybridc.schedules.cuda import held_match, held_rows, launch_loops
from hybridc.schedules.cuda.held_form import Form
from hybridc.schedules.loops import analysis, transforms
from hybridc.schedules.loops.analysis import Block
from hybridc.schedules.products import tiling
from hybridc.schedules.rows import row_stages

# Elements that a thread combines by itself, so that the tree behind them is a small part.
_SERIAL = 8
_ALONG = (32, 64, 128, 256, 512)
_ACROSS = (1, 2, 4, 8, 16, 32)
_ROWS = (1, 2, 4, 8)
_MOST_ROWS = 256
# Threads of a block where rows are short.
_FEW = 128
# What stages may keep in shared memory and still leave room for a second block.
_KEPT = 40 * 2**10
# Where stages are kept: nowhere, in shared memory, or with all of the row in registers.
_AGAIN, _SHARED, _HELD = 0, 1, 2
# Registers of a thread for a row, at most and by analysis: 128 bytes are some reads under way.
_MOST_HELD, _USUAL_HELD = 64, 32
# Blocks of a multiprocessor, and registers of a thread, up to which all is read at the beginning.
_ALONE, _MOST_AHEAD = 4, 128


@dataclass(frozen=True)
class GpuRows(Match):
    """A kernel of row stages; `length` of a row, `count` of rows, `bytes` that a row's stages keep.

    `stored` are the elementwise stages, which can be kept in shared memory or computed again;
    `beside` is how many rows a block may have, which divides them.  `form` is
    of rows that lie in registers.
    """

    rows: row_stages.Rows
    length: int
    count: int
    bytes: int
    stored: tuple[str, ...]
    beside: tuple[int, ...]
    form: Form | None


def analyse(func: PrimFunc, target: Target) -> GpuRows | NotApplicable:
    """Find the row stages of a kernel."""
    rows = row_stages.analyse(func, target)
    if isinstance(rows, NotApplicable):
        return rows
    found = {block.name: block for block in analysis.blocks(rows.staged)}
    reductions = [found[name] for name in rows.stages if found[name].reduction]
    count = prod(reductions[0].spatial.values())
    # What has one element a row is computed again rather than passed between threads.
    shape = tuple(found[rows.output].spatial.values())
    stored = tuple(
        name
        for name in rows.stages
        if not found[name].reduction and tuple(found[name].spatial.values()) == shape != (count,)
    )
    if len(rows.kept) == rows.output_axes:
        stored = ()
    held = sum(_bytes_of(found[name]) // count for name in stored)
    length = max(prod(block.reduction.values()) for block in reductions)
    widths = tiling.divisors(rows.axis) if not rows.along else _ROWS
    extents = tuple(reductions[0].spatial.values())
    beside = tuple(n for n in widths if _box(n, extents) and n <= _MOST_ROWS)
    form = held_match.analyse(rows, stored)
    return GpuRows(func, target, rows, length, count, held, stored, beside, form)


def _box(count: int, extents: tuple[int, ...]) -> bool:
    """Whether rows, cut into so many neighbours, fall into boxes of the axes that number them.

    Others begin and end within an axis, and TVM finds no region that their stages compute.
    """
    for extent in reversed(extents):
        if extent % count == 0:
            return True
        if count % extent:
            return False
        count //= extent
    return count == 1


def space(match: GpuRows) -> Space:
    """`threads` of a row, `rows` of a block, and where to `keep` stages: 0 computes them again."""
    keep: tuple[int, ...] = (
        (_AGAIN, _SHARED) if match.stored and match.bytes <= _most(match) else (_AGAIN,)
    )
    if match.rows.along:
        keep += (_HELD,) if _teams(match, _MOST_HELD) else ()
        return {"threads": _ALONG, "rows": match.beside, "keep": keep}
    return {"threads": _ACROSS, "rows": match.beside, "keep": keep}


def default(match: GpuRows) -> Point:
    """Some elements for each thread; short rows share a block; stages kept where they fit."""
    wanted = -(-match.length // _SERIAL)
    if teams := _teams(match, _USUAL_HELD):
        return canonical(match, {**_held_default(match, teams[0]), "keep": _HELD})
    if match.rows.along:
        threads = next((n for n in _ALONG if n >= wanted), _ALONG[-1])
        rows = max(n for n in match.beside if n == 1 or n * threads <= _FEW)
    else:
        # A warp beside each other at least, lest memory is read in pieces.
        wide = [n for n in match.beside if n >= WARP] or [match.beside[-1]]
        rows = wide[0]
        threads = max(n for n in _ACROSS if n == 1 or (n <= wanted and n * rows <= MOST_THREADS))
    keep = int(bool(match.stored) and match.bytes * rows <= _KEPT)
    return canonical(match, {"threads": threads, "rows": rows, "keep": keep})


def canonical(match: GpuRows, point: Point) -> Point:
    """As many rows as a block has threads for, and memory where stages are kept."""
    if point["keep"] == _HELD and point["threads"] not in (teams := _teams(match, _MOST_HELD)):
        return canonical(match, {**point, "threads": teams[0]})
    rows = max(n for n in match.beside if n <= min(point["rows"], MOST_THREADS // point["threads"]))
    if point["keep"] == _SHARED:
        fitting = [n for n in match.beside if n <= rows and n * match.bytes <= _most(match)]
        rows = max(fitting, default=rows)
        return {**point, "rows": rows, "keep": int(bool(fitting))}
    return {**point, "rows": rows}


def schedule(match: GpuRows, given: Point) -> Schedule:
    """Rows over blocks; all stages of a row within its block."""
    point = canonical(match, given)
    if point["keep"] == _HELD and match.form:
        threads, rows = point["threads"], point["rows"]
        ahead = _ahead(match, match.form, threads, rows)
        made = held_rows.kernel(match.form, held_rows.Team(threads, rows, ahead))
        return transforms.new_schedule(made)
    return _staged(match, point)


def _staged(match: GpuRows, point: Point) -> Schedule:
    """Rows whose elements each stage reads from memory."""
    made = transforms.new_schedule(match.rows.staged)
    for name in match.rows.apart:
        launch_loops.spread(made, name, launch_loops.USUAL_THREADS)
    shared = match.stored if point["keep"] else ()
    reductions = {each.name for each in transforms.blocks(made) if each.reduction}
    for name in reversed(match.rows.stages):
        if name not in reductions and name not in shared:
            made.compute_inline(name)
    team = _Team(made, point["rows"], point["threads"], match.rows.along)
    kept, inner = _output_loops(made, match.rows)
    block, row = made.split(kept, [None, team.rows])
    made.bind(block, "blockIdx.x")
    made.bind(row, team.row_axis)
    team.bind_row(inner)
    left = {each.name for each in transforms.blocks(made)}
    for name in reversed([name for name in match.rows.stages if name in left]):
        stage = made.get_sblock(name)
        # What a row's threads combine each of them gets; what a thread stores it alone reads back,
        # since all stages divide a row among threads alike.  So no barrier is needed between them:
        # TVM would leave out some where an element is written by one thread of a row.
        made.set_scope(stage, 0, "local" if name in reductions else "shared")
        made.compute_at(stage, block, preserve_unit_loops=True)
        team.bind_stage(stage, match.rows.kept)
    return made


def _teams(match: GpuRows, registers: int) -> tuple[int, ...]:
    """How many threads may hold a row in so many registers of each."""
    form = match.form
    return tuple(n for n in _ALONG if form and form.registers(n) <= registers)


def _held_default(match: GpuRows, threads: int) -> Point:
    """Rows enough for a block of some warps, as long as all multiprocessors have one."""
    sms = match.target.device.sms
    fitting = [n for n in match.beside if n * threads <= _FEW and match.count >= n * sms]
    return {"threads": threads, "rows": max(fitting, default=1)}


def _ahead(match: GpuRows, form: Form, threads: int, rows: int) -> bool:
    """Whether no other block's work hides the reads of the last stage, and registers are left."""
    few = match.count // rows <= _ALONE * match.target.device.sms
    return few and form.registers(threads, ahead=True) <= _MOST_AHEAD


@dataclass(frozen=True)
class _Team:
    """The threads of a block: `threads` for each of `rows`, side by side along memory."""

    schedule: Schedule
    rows: int
    threads: int
    along: bool

    @property
    def row_axis(self) -> str:
        """The thread index that tells rows apart."""
        return "threadIdx.y" if self.along else "threadIdx.x"

    def bind_row(self, loop: Any) -> None:
        """The elements of a row over its threads: neighbours to neighbours, the rest in turn."""
        turns, thread = self.schedule.split(loop, [None, self.threads])
        self.schedule.reorder(thread, turns)
        self.schedule.bind(thread, "threadIdx.x" if self.along else "threadIdx.y")

    def bind_stage(self, stage: Any, kept: tuple[int, ...]) -> None:
        """Its rows, and what it reduces over; or the axes of a row where it has them all."""
        made = self.schedule
        info, loops = transforms.info(made, stage), transforms.loops_of(made, stage)
        spatial = [loops[axis] for axis in info.spatial]
        rows, inner = spatial, [loops[axis] for axis in info.reduction]
        if not inner:
            rows = [loop for place, loop in enumerate(spatial) if place in kept]
            inner = [loop for place, loop in enumerate(spatial) if place not in kept]
            made.reorder(*rows, *inner)
        made.bind(made.fuse(*rows) if rows else made.add_unit_loop(inner[0]), self.row_axis)
        self.bind_row(made.fuse(*inner))


def _output_loops(schedule: Schedule, rows: row_stages.Rows) -> tuple[Any, Any]:
    """The output's loops over rows as one, and those within a row as another."""
    loops = schedule.get_loops(rows.output)
    kept = [loops[position] for position in rows.kept]
    others = [loop for position, loop in enumerate(loops) if position not in rows.kept]
    if not loops:
        kept = [schedule.add_unit_loop(schedule.get_sblock(rows.output))]
    elif not kept:
        kept = [schedule.add_unit_loop(loops[0])]
    if others:
        schedule.reorder(*kept, *others)
        inner = schedule.fuse(*others)
    else:
        inner = schedule.add_unit_loop(schedule.get_sblock(rows.output))
    return schedule.fuse(*kept), inner


def _most(match: GpuRows) -> int:
    """Bytes of shared memory that TVM's statically sized buffers may take."""
    return match.target.device.static_shared * 3 // 4


def _bytes_of(block: Block) -> int:
    sizes: Mapping[str, int] = {"float64": 8, "int64": 8, "float16": 2, "bfloat16": 2}
    dtype = str(block.writes[0].dtype)
    return block.iterations * sizes.get(dtype, 4)
