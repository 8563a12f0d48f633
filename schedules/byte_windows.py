"""Products of bytes whose operands are arranged so that 16 bits hold their sums."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import tvm
from tvm import tirx
from tvm.s_tir import Schedule as TVMSchedule
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule, Space
from hybridc.compiler.kernels.byte_packing import COUNT, LANES, VECTORS, Runs, runs_of
from hybridc.compiler.kernels.byte_windows import CYCLES, KIND, RUNS
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
# Axes of the product of a convolution.
_IMAGES = 4


@dataclass(frozen=True)
class ByteWindows(Tiled):
    """Schedule products of bytes in windows: rows by one or two vectors, tasks over threads."""

    priority: ClassVar[int] = 81

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `pack-weights` made where the target multiplies in 256 bits."""
        if target.vector_bits != 256 or "avx2" not in target.features:
            return NotApplicable("its instructions are those of 256 bits")
        found = _contraction.find_product(func, KIND)
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        block, shape = schedule.get(product), _contraction.extents(schedule, product)
        x, windows = _read(block, "uint8"), _windows(block)
        image = [int(extent) for extent in x.shape]
        convolves = len(shape) == _IMAGES + _LOOPS - 2
        images, height, rows, columns = shape[:4] if convolves else (1, 1, *shape[:2])
        stride = _stride(block)
        image_row = image[-2] * image[-1] if convolves else 0
        problem = _tiling.Problem(
            images,
            height,
            rows,
            columns,
            depth=windows * VECTORS,
            row_stride=stride,
            image_bytes=image[-3] * image_row if convolves else rows * stride,
            lanes=LANES,
            halo_bytes=(_runs(block).runs - 1) * image_row,
            weight_bytes=_STEP_BYTES,
            cycles=CYCLES,
        )
        return Contraction(func, target, problem)

    def knobs(self, match: Contraction) -> Space:
        """Rows and vectors of the tile; row tiles and panels of a task."""
        points = list(_points(match.problem))
        names = ("rows", "vectors", "chunk", "panels")
        return {name: tuple(sorted({point[name] for point in points})) for name in names}

    def default(self, match: Contraction, target: Target) -> Point:
        """The analytic model's choice; two vectors, which are stored as one, where they fit."""
        points = list(_points(match.problem))
        vectors = max(point["vectors"] for point in points)
        wide = [point for point in points if point["vectors"] == vectors]
        return min(wide, key=lambda point: _tiling.estimate(match.problem, point, target))

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile; a tile's product is a call of the loops for its rows, for each vector."""
        schedule, product, store = _contraction.opened(match)

        def multiplied(at: Any) -> None:
            schedule.compute_at(product, at, preserve_unit_loops=True)
            schedule.annotate(schedule.get_loops(product)[-_LOOPS], _MARK, 1)

        for block in schedule.get_producers(product):
            _contraction.spread(schedule, block)
        block, problem = schedule.get(product), match.problem
        rows, vectors = (point["rows"], point["vectors"])
        rows, vectors = min(rows, problem.rows), min(vectors, problem.panels(1))
        _contraction.tile(match, schedule, product, store, point, multiplied)
        image = [int(extent) for extent in _read(block, "uint8").shape]
        starts = tuple(_runs(block).starts(image[-2] * image[-1]))
        pitch = vectors * LANES * 4
        loops = {
            count: Loops(count, _stride(block), _windows(block), pitch, starts)
            for count in {rows, problem.rows % rows} - {0}
        }
        return _called(schedule, loops, problem.rows, vectors)


def _points(problem: _tiling.Problem) -> Sequence[Point]:
    """All points; two vectors only where panels come in pairs."""
    return [
        {"rows": rows, "vectors": vectors, "chunk": chunk, "panels": panels}
        for vectors in ((1,) if problem.panels(1) % 2 else (1, 2))
        for rows in range(1, min(problem.rows, MOST_ROWS) + 1)
        for chunk, panels in _tiling.possible_tasks(problem, (rows, vectors))
    ]


def _runs(product: Any) -> Runs:
    return runs_of(product.annotations[RUNS])


def _windows(product: Any) -> int:
    """Windows of a panel."""
    return int(_read(product, "uint16").shape[-1]) - COUNT


def _stride(product: Any) -> int:
    """Bytes between the activations of successive rows."""
    return _runs(product).steps[1] * int(_read(product, "uint8").shape[-1])


def _called(
    schedule: Schedule, loops: Mapping[int, Loops], rows: int, vectors: int
) -> Schedule:
    """The schedule with calls of the loops in place of what is marked, and with their source."""

    def replaced(loop: Any) -> Any:
        return _tile(loop, loops, rows, vectors) if _MARK in loop.annotations else loop

    func = schedule.mod["main"]
    root = structural_map(func.body, (tirx.For, replaced))
    body = root.block.body
    for each in loops.values():
        body = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", each.source, body)
    func = func.with_body(_vectors.replaced(root, body, []))
    return TVMSchedule(tvm.IRModule({"main": func}), error_render_level="fast")


def _tile(loop: Any, loops: Mapping[int, Loops], rows: int, vectors: int) -> Any:
    """The product of one tile: calls of the loops for its rows, fewer in the last tile."""
    start = {}
    while isinstance(loop, tirx.For):
        start[loop.loop_var] = loop.min
        loop = loop.body
    first = [_vectors.substitute(value, start) for value in loop.iter_values[: 2 - _LOOPS]]
    most = max(loops)
    body = _calls(loop.block, first, loops[most], vectors)
    for count in loops.keys() - {most}:
        rest = _calls(loop.block, first, loops[count], vectors)
        body = tirx.IfThenElse(first[-2] + most <= rows, body, rest)
    return body


def _calls(block: Any, first: Sequence[Any], loops: Loops, vectors: int) -> Any:
    """The calls for the tile whose first row and column these are."""
    x, table, order = (_read(block, dtype) for dtype in ("uint8", "int8", "uint16"))
    *row, column = first
    if len(row) == 1:
        place = [*unflatten(row[0], [int(extent) for extent in x.shape[:-1]]), 0]
    else:
        steps = _runs(block).steps
        place = [row[0], row[1] * steps[0], row[2] * steps[1], 0]
    made = []
    for vector in range(vectors):
        panel = column // LANES + vector
        operands = [
            (block.writes[0].source, [*row, column + vector * LANES]),
            (x, place),
            (table, [panel, 0, 0, 0, 0]),
            (order, [panel, 0]),
        ]
        pointers = [tirx.address_of(tirx.BufferLoad(of, indices)) for of, indices in operands]
        made.append(tirx.Evaluate(tirx.call_extern("void", loops.name, *pointers)))
    return made[0] if vectors == 1 else tirx.SeqStmt(made)


def _read(block: Any, dtype: str) -> Any:
    """The operand of a type that a block reads."""
    return next(read.source for read in block.reads if str(read.source.dtype) == dtype)
