"""Products of bytes whose operands are arranged so that 16 bits hold their sums."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import tvm
from tvm import tirx
from tvm.s_tir import Schedule as TVMSchedule
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule, Space
from hybridc.compiler.kernels.products.byte_packing import LANES, VECTORS, Runs, runs_of
from hybridc.compiler.kernels.products.byte_windows import CYCLES, KIND, RUNS
from hybridc.compiler.kernels.tensor_expressions import unflatten
from hybridc.compiler.target import Target
from hybridc.schedules.loops import vector_loops
from hybridc.schedules.products import contraction, tiling
from hybridc.schedules.products.byte_windows import MOST_ROWS, Loops
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.problem import Problem
from hybridc.schedules.products.tiled import Tiled

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
        found = contraction.find_product(func, KIND)
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        block, shape = schedule.get(product), contraction.extents(schedule, product)
        x, windows = _read(block, "uint8"), _windows(block)
        image = [int(extent) for extent in x.shape]
        convolves = len(shape) == _IMAGES + _LOOPS - 2
        images, height, rows = shape[:3] if convolves else (1, 1, shape[0])
        columns = contraction.extents(schedule, schedule.get_consumers(product)[0])[-1]
        stride = _stride(block)
        image_row = image[-2] * image[-1] if convolves else 0
        problem = Problem(
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
        points = list(_points(match.problem, match.target))
        names = ("rows", "vectors", "chunk", "panels")
        return {name: tuple(sorted({point[name] for point in points})) for name in names}

    def default(self, match: Contraction, target: Target) -> Point:
        """The analytic model's choice; two vectors, which are stored as one, where they fit."""
        points = list(_points(match.problem, target))
        vectors = max(point["vectors"] for point in points)
        wide = [point for point in points if point["vectors"] == vectors]
        return min(wide, key=lambda point: tiling.estimate(match.problem, point, target))

    def canonical(self, match: Contraction, point: Point) -> Point:
        """A tile no larger than the kernel; vectors of panels in pairs only."""
        vectors = 1 if match.problem.panels(1) % 2 else point["vectors"]
        return super().canonical(match, {**point, "vectors": vectors})

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile; a tile's product is a call of the loops for its rows, for each vector."""
        schedule, product, store = contraction.opened(match)

        def multiplied(at: Any) -> None:
            schedule.compute_at(product, at, preserve_unit_loops=True)
            schedule.annotate(schedule.get_loops(product)[-_LOOPS], _MARK, 1)

        for block in schedule.get_producers(product):
            contraction.spread(schedule, block)
        block, problem = schedule.get(product), match.problem
        point = self.canonical(match, point)
        contraction.tile(match, schedule, product, store, point, within=multiplied)
        return _called(schedule, _Tiles(block, problem, point))


def _points(problem: Problem, target: Target) -> Sequence[Point]:
    """All points; two vectors only where panels come in pairs."""
    return [
        {"rows": rows, "vectors": vectors, "chunk": chunk, "panels": panels}
        for vectors in ((1,) if problem.panels(1) % 2 else (1, 2))
        for rows in range(1, min(problem.rows, MOST_ROWS) + 1)
        for chunk, panels in tiling.possible_tasks(problem, (rows, vectors), target)
    ]


def _runs(product: Any) -> Runs:
    return runs_of(product.annotations[RUNS])


def _windows(product: Any) -> int:
    """Windows of a panel."""
    return int(_read(product, "int8").shape[1])


def _stride(product: Any) -> int:
    """Bytes between the activations of successive rows."""
    return _runs(product).steps[1] * int(_read(product, "uint8").shape[-1])


@dataclass(frozen=True)
class _Tiles:
    """The tiles of a product at a point, and the loops that multiply them."""

    block: Any
    problem: Problem
    point: Point

    @cached_property
    def loops(self) -> Mapping[int, Loops]:
        """The loops for a tile's rows, and for those of the last one."""
        image = [int(extent) for extent in _read(self.block, "uint8").shape]
        starts = tuple(_runs(self.block).starts(image[-2] * image[-1]))
        pitch = self.point["vectors"] * LANES * 4
        rows = self.point["rows"]
        return {
            count: Loops(
                count, _stride(self.block), self.windows, pitch, starts, -(-VECTORS // self.calls)
            )
            for count in {rows, self.problem.rows % rows} - {0}
        }

    @property
    def windows(self) -> int:
        """Windows of a panel."""
        return _windows(self.block)

    @property
    def calls(self) -> int:
        """Tiles that a task multiplies by one panel, as far as its lines count."""
        rows = -(-self.problem.rows // self.point["rows"]) if self.problem.height > 1 else 1
        return min(VECTORS, rows * self.point["chunk"])

    def call(self, first: Sequence[Any]) -> Any:
        """Calls for the tile whose first row and column these are; the last one has fewer rows."""
        most = max(self.loops)
        body = self._calls(first, self.loops[most])
        for count in self.loops.keys() - {most}:
            rest = self._calls(first, self.loops[count])
            body = tirx.IfThenElse(first[-2] + most <= self.problem.rows, body, rest)
        return body

    def _calls(self, first: Sequence[Any], loops: Loops) -> Any:
        *row, column = first
        x, table, order = (_read(self.block, dtype) for dtype in ("uint8", "int8", "uint16"))
        made = []
        for vector in range(self.point["vectors"]):
            panel = column // LANES + vector
            operands = [
                (self.block.writes[0].source, [*row, column + vector * LANES]),
                (x, self._place(row, x)),
                (table, [panel, 0, 0, 0, 0]),
                (order, [panel, 0]),
                (table, [*self._ahead(row, panel), 0, 0, 0]),
            ]
            pointers = [tirx.address_of(tirx.BufferLoad(of, indices)) for of, indices in operands]
            made.append(tirx.Evaluate(tirx.call_extern("void", loops.name, *pointers)))
        return made[0] if len(made) == 1 else tirx.SeqStmt(made)

    def _place(self, row: Sequence[Any], x: Any) -> list[Any]:
        """Where the activations of a row begin."""
        if len(row) == 1:
            return [*unflatten(row[0], [int(extent) for extent in x.shape[:-1]]), 0]
        down, along = _runs(self.block).steps
        return [row[0], row[1] * down, row[2] * along, 0]

    def _ahead(self, row: Sequence[Any], panel: Any) -> list[Any]:
        """The panel that comes next, and the part of it that this tile is to ask for."""
        following = tirx.min(panel + self.point["vectors"], self.problem.panels(1) - 1)
        number = row[-1] // self.point["rows"]
        if len(row) > 1:
            number = row[-2] * -(-self.problem.rows // self.point["rows"]) + number
        part = -(-self.windows // self.calls)
        return [following, number % self.calls * part]


def _called(schedule: Schedule, tiles: _Tiles) -> Schedule:
    """The schedule with calls of the loops in place of what is marked, and with their source."""

    def replaced(loop: Any) -> Any:
        if _MARK not in loop.annotations:
            return loop
        start = {}
        while isinstance(loop, tirx.For):
            start[loop.loop_var] = loop.min
            loop = loop.body
        values = loop.iter_values[: 2 - _LOOPS]
        return tiles.call([vector_loops.substitute(value, start) for value in values])

    func = schedule.mod["main"]
    root = structural_map(func.body, (tirx.For, replaced))
    body = root.block.body
    for each in tiles.loops.values():
        body = tirx.AttrStmt(tirx.const(0, "int32"), "pragma_import_llvm", each.source, body)
    func = func.with_body(vector_loops.replaced(root, body, []))
    return TVMSchedule(tvm.IRModule({"main": func}), error_render_level="fast")


def _read(block: Any, dtype: str) -> Any:
    """The operand of a type that a block reads."""
    return next(read.source for read in block.reads if str(read.source.dtype) == dtype)
