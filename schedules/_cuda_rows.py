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
from hybridc.schedules import _analysis, _cuda_loops, _loops, _rows
from hybridc.schedules._analysis import Block

# Elements that a thread combines by itself, so that the tree behind them is a small part.
_SERIAL = 8
_ALONG = (32, 64, 128, 256, 512)
_ACROSS = (1, 2, 4, 8, 16, 32)
_ROWS = (1, 2, 4, 8)
# Threads of a block where rows are short.
_FEW = 128
# What stages may keep in shared memory and still leave room for a second block.
_KEPT = 40 * 2**10


@dataclass(frozen=True)
class GpuRows(Match):
    """A kernel of row stages; `length` of a row, `count` of rows, `bytes` that a row's stages keep.

    `stored` are the elementwise stages, which can be kept in shared memory or computed again.
    """

    rows: _rows.Rows
    length: int
    count: int
    bytes: int
    stored: tuple[str, ...]


def analyse(func: PrimFunc, target: Target) -> GpuRows | NotApplicable:
    """Find the row stages of a kernel."""
    rows = _rows.analyse(func, target)
    if isinstance(rows, NotApplicable):
        return rows
    found = {block.name: block for block in _analysis.blocks(rows.staged)}
    reductions = [found[name] for name in rows.stages if found[name].reduction]
    count = prod(reductions[0].spatial.values())
    stored = tuple(name for name in rows.stages if not found[name].reduction)
    held = sum(_bytes_of(found[name]) // count for name in stored)
    length = max(prod(block.reduction.values()) for block in reductions)
    return GpuRows(func, target, rows, length, count, held, stored)


def space(match: GpuRows) -> Space:
    """`threads` of a row, `rows` of a block, and whether to `keep` stages or compute them again."""
    keep = (0, 1) if match.stored and match.bytes <= _most(match) else (0,)
    if match.rows.along:
        return {"threads": _ALONG, "rows": _ROWS, "keep": keep}
    return {"threads": _ACROSS, "rows": (WARP,), "keep": keep}


def default(match: GpuRows) -> Point:
    """Some elements for each thread; short rows share a block; stages kept where they fit."""
    wanted = -(-match.length // _SERIAL)
    if not match.rows.along:
        threads = max(n for n in _ACROSS if n == 1 or n <= wanted)
        keep = int(bool(match.stored) and match.bytes * WARP <= _KEPT)
        return {"threads": threads, "rows": WARP, "keep": keep}
    threads = next((n for n in _ALONG if n >= wanted), _ALONG[-1])
    rows = max(n for n in _ROWS if n * threads <= max(_FEW, threads) and n <= max(1, match.count))
    keep = int(bool(match.stored) and match.bytes * rows <= _KEPT)
    return canonical(match, {"threads": threads, "rows": rows, "keep": keep})


def canonical(match: GpuRows, point: Point) -> Point:
    """As many rows as a block has threads for, and memory where stages are kept."""
    if not match.rows.along:
        fits = match.bytes * WARP <= _most(match)
        return {**point, "keep": int(bool(point["keep"]) and fits)}
    rows = min(point["rows"], MOST_THREADS // point["threads"])
    if point["keep"]:
        rows = max(n for n in _ROWS if n <= rows and (n == 1 or n * match.bytes <= _most(match)))
    return {**point, "rows": rows}


def schedule(match: GpuRows, given: Point) -> Schedule:
    """Rows over blocks; all stages of a row within its block."""
    point = canonical(match, given)
    made = _loops.new_schedule(match.rows.staged)
    for name in match.rows.apart:
        _cuda_loops.spread(made, name, _cuda_loops.USUAL_THREADS)
    if not point["keep"]:
        for name in reversed(match.stored):
            made.compute_inline(name)
    kept, inner = _output_loops(made, match.rows)
    block, row = made.split(kept, [None, point["rows"]])
    made.bind(block, "blockIdx.x")
    along = match.rows.along
    made.bind(row, "threadIdx.y" if along else "threadIdx.x")
    axis = "threadIdx.x" if along else "threadIdx.y"
    _bind(made, inner, point["threads"], axis)
    left = {each.name for each in _loops.blocks(made)}
    for name in reversed([name for name in match.rows.stages if name in left]):
        stage = made.get_sblock(name)
        made.set_scope(stage, 0, "shared")
        made.compute_at(stage, row, preserve_unit_loops=True)
        _bind(made, made.fuse(*_row_loops(made, stage)), point["threads"], axis)
    return made


def _output_loops(schedule: Schedule, rows: _rows.Rows) -> tuple[Any, Any]:
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


def _row_loops(schedule: Schedule, stage: Any) -> list[Any]:
    """The loops of a stage within a row: those that it reduces over, or all it has of its own."""
    info = _loops.info(schedule, stage)
    loops = _loops.loops_of(schedule, stage)
    if info.reduction:
        return [loops[axis] for axis in info.reduction]
    return [loops[axis] for axis in info.spatial]


def _bind(schedule: Schedule, loop: Any, threads: int, axis: str) -> None:
    """The elements of a row over its threads: neighbours to neighbours, the rest in turn."""
    turns, thread = schedule.split(loop, [None, threads])
    schedule.reorder(thread, turns)
    schedule.bind(thread, axis)


def _most(match: GpuRows) -> int:
    """Bytes of shared memory that TVM's statically sized buffers may take."""
    return match.target.device.static_shared * 3 // 4


def _bytes_of(block: Block) -> int:
    sizes: Mapping[str, int] = {"float64": 8, "int64": 8, "float16": 2, "bfloat16": 2}
    dtype = str(block.writes[0].dtype)
    return block.iterations * sizes.get(dtype, 4)
