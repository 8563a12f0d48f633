"""Products of bytes whose operands are arranged so that 16 bits hold their sums."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import tvm
from tvm import tirx
from tvm.s_tir import Schedule as TVMSchedule
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule, Space
from hybridc.compiler.kernels.byte_windows import COUNT, CYCLES, KIND, LANES, VECTORS
from hybridc.compiler.kernels.tensor_expressions import unflatten
from hybridc.compiler.target import Target
from hybridc.schedules import _contraction, _tiling, _vectors
from hybridc.schedules._byte_windows import MOST_ROWS, Loops
from hybridc.schedules._contraction import Contraction
from hybridc.schedules._tiled import Tiled

_MARK = "hybridc.byte_windows"
# Those of a tile's product: rows, columns, windows, groups, halves.
_LOOPS = 5
# Bytes of the table for each lane in a step of four k: a pattern and a weight.
_STEP_BYTES = 8


@dataclass(frozen=True)
class ByteWindows(Tiled):
    """Schedule products of bytes in windows: tiles of rows by one vector, tasks over threads."""

    priority: ClassVar[int] = 81

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `pack-weights` made where the target multiplies in 256 bits."""
        if target.vector_bits != 256 or "avx2" not in target.features:
            return NotApplicable("its instructions are those of 256 bits")
        found = _contraction.find_product(func, KIND)
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        rows, columns = _contraction.extents(schedule, product)[:2]
        depth, windows = _sizes(schedule.get(product))
        problem = _tiling.Problem(
            *(1, 1, rows, columns, windows * VECTORS, depth, rows * depth, LANES),
            weight_bytes=_STEP_BYTES,
            cycles=CYCLES,
        )
        return Contraction(func, target, problem)

    def knobs(self, match: Contraction) -> Space:
        """Rows of the tile; row tiles and panels of a task."""
        problem = match.problem
        rows = tuple(range(1, min(problem.rows, MOST_ROWS) + 1))
        units = {d for count in rows for d in _tiling.divisors(problem.units(count))}
        panels = _tiling.divisors(problem.panels(1))
        return {"rows": rows, "vectors": (1,), "chunk": tuple(sorted(units)), "panels": panels}

    def default(self, match: Contraction, target: Target) -> Point:
        """The analytic model's choice."""
        problem = match.problem
        points = [
            {"rows": rows, "vectors": 1, "chunk": chunk, "panels": panels}
            for rows in range(1, min(problem.rows, MOST_ROWS) + 1)
            for chunk, panels in _tiling.possible_tasks(problem, (rows, 1))
        ]
        return min(points, key=lambda point: _tiling.estimate(problem, point, target))

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile; a tile's product is a call of the loops for its rows."""
        schedule, product, store = _contraction.opened(match)

        def multiplied(at: Any) -> None:
            schedule.compute_at(product, at, preserve_unit_loops=True)
            schedule.annotate(schedule.get_loops(product)[-_LOOPS], _MARK, 1)

        depth, windows = _sizes(schedule.get(product))
        rows = min(point["rows"], match.problem.rows)
        for block in schedule.get_producers(product):
            _contraction.spread(schedule, block)
        _contraction.tile(match, schedule, product, store, point, multiplied)
        sizes = {count for count in (rows, match.problem.rows % rows) if count}
        loops = {count: Loops(count, depth, windows) for count in sizes}
        return _called(schedule, loops, match.problem.rows)


def _sizes(product: Any) -> tuple[int, int]:
    """Bytes of a row, and windows of a panel."""
    depth, order = (_read(product, dtype).shape[-1] for dtype in ("uint8", "uint16"))
    return int(depth), int(order) - COUNT


def _called(schedule: Schedule, loops: Mapping[int, Loops], rows: int) -> Schedule:
    """The schedule with calls of the loops in place of what is marked, and with their source."""

    def replaced(loop: Any) -> Any:
        return _tile(loop, loops, rows) if _MARK in loop.annotations else loop

    func = schedule.mod["main"]
    root = structural_map(func.body, (tirx.For, replaced))
    body = root.block.body
    for each in loops.values():
        body = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", each.source, body)
    func = func.with_body(_vectors.replaced(root, body, []))
    return TVMSchedule(tvm.IRModule({"main": func}), error_render_level="fast")


def _tile(loop: Any, loops: Mapping[int, Loops], rows: int) -> Any:
    """The product of one tile: a call of the loops for its rows, fewer in the last tile."""
    start = {}
    while isinstance(loop, tirx.For):
        start[loop.loop_var] = loop.min
        loop = loop.body
    first = [_vectors.substitute(value, start) for value in loop.iter_values[:2]]
    most = max(loops)
    body = _evaluated(loop.block, first, loops[most])
    for count in loops.keys() - {most}:
        rest = _evaluated(loop.block, first, loops[count])
        body = tirx.IfThenElse(first[0] + most <= rows, body, rest)
    return body


def _evaluated(block: Any, first: Sequence[Any], loops: Loops) -> Any:
    """The call for the tile whose first row and column these are."""
    x, table, order = (_read(block, dtype) for dtype in ("uint8", "int8", "uint16"))
    panel = first[1] // LANES
    row = unflatten(first[0], [int(extent) for extent in x.shape[:-1]])
    places = [
        (block.writes[0].source, first),
        (x, [*row, 0]),
        (table, [panel, 0, 0, 0, 0]),
        (order, [panel, 0]),
    ]
    pointers = [tirx.address_of(tirx.BufferLoad(of, indices)) for of, indices in places]
    return tirx.Evaluate(tirx.call_extern("void", loops.name, *pointers))


def _read(block: Any, dtype: str) -> Any:
    """The operand of a type that a block reads."""
    return next(read.source for read in block.reads if str(read.source.dtype) == dtype)
