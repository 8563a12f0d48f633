"""Loops for depthwise convolutions plane by plane.

A band of image rows is copied into a buffer that stays in the L1 cache, with zeros around it where
the window reaches beyond the image; with strides, columns by their remainder (phases), so that
neighbouring outputs read neighbouring elements.  Then tiles of the output are summed in registers:
what is loaded of a row of the image serves every row of the tile whose window it is under.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Point
from hybridc.schedules.loops import statements, vector_loops
from hybridc.schedules.rows.planes import Planes, Row

Expr = Any  # tvm.ir.Expr
Statement = Any  # tvm.tirx.Stmt

# Bytes of a band, half of an L1 cache; and bands for each thread that even out what is left over.
_BAND_BYTES = 16 * 2**10
_TASKS = 4
# Strides up to which columns are parted by shuffles.
_SHUFFLED = 4


@dataclass(frozen=True)
class Writer:
    """Writes the loops of one kernel at a point."""

    planes: Planes
    point: Point

    @cached_property
    def row(self) -> Row:
        """A row of the band."""
        return Row.of(self.planes)

    @cached_property
    def _reach(self) -> int:
        """Rows of the image under a window."""
        return self.planes.window[2] * (self.planes.kernel[0] - 1) + 1

    @cached_property
    def _rows(self) -> int:
        """Rows of the output in a band: whole tiles, as many as fit, and work for each thread."""
        height, tile = self.planes.size[0], self.point["rows"]
        stride = self.planes.window[0]
        fits = (_BAND_BYTES // (self.row.size * 4) - self._reach) // stride + 1
        batch, channels = self.planes.planes
        if self.point["threads"]:
            wanted = -(-_TASKS * self.planes.target.threads // (batch * channels))
            fits = min(fits, -(-height // wanted))
        bands = -(-height // max(tile, fits))
        even = -(-height // bands)
        return min(height, -(-even // tile) * tile)

    def body(self) -> Statement:
        """The root block with all loops."""
        planes, rows = self.planes, self._rows
        height = planes.size[0]
        bands = -(-height // rows)
        task = statements.counter("task")
        plane = task // bands if bands > 1 else task
        first = tirx.min(task % bands * rows, statements.long(height - rows))
        made = self._band([plane // planes.planes[1], plane % planes.planes[1]], first)
        count = planes.planes[0] * planes.planes[1] * bands
        kind = tirx.ForKind.SERIAL
        if self.point["threads"] and count > 1:
            kind = tirx.ForKind.PARALLEL
        root = planes.func.body.block
        loop = statements.loop(task, count, made, kind)
        block = s_tir.SBlock([], root.reads, root.writes, root.name_hint, loop)
        return s_tir.SBlockRealize([], True, block)

    def _band(self, plane: list[Expr], first: Expr) -> Statement:
        """Copy the rows that a band reads, and compute its tiles."""
        planes, rows = self.planes, self._rows
        stride, top = planes.window[0], planes.window[4]
        count = (rows - 1) * stride + self._reach
        band = statements.scratch(count * self.row.size, planes.operands[0].dtype)
        line = statements.counter("line")
        source = [plane[0], plane[1] // planes.results]
        copy = self._copy(band, line * self.row.size, source, first * stride + line - top)
        tile, column = statements.counter("tile"), statements.counter("column")
        height, vectors, lanes = self.point["rows"], self.point["vectors"], planes.lanes
        top_row = tirx.min(tile * height, statements.long(rows - height))
        tiles, rest = divmod(planes.vectors, vectors)
        parts: list[Statement] = []
        if tiles:
            starts = [column * (vectors * lanes) + v * lanes for v in range(vectors)]
            whole = self._tile(band, plane, (first, top_row), self._within(starts, not rest))
            parts.append(statements.loop(column, tiles, whole))
        if rest:
            starts = [statements.long((tiles * vectors + v) * lanes) for v in range(rest)]
            parts.append(self._tile(band, plane, (first, top_row), self._within(starts, True)))
        made = statements.loop(tile, -(-rows // height), statements.sequence(parts))
        return statements.with_buffers([statements.loop(line, count, copy), made], [band])

    def _within(self, starts: list[Expr], last: bool) -> list[Expr]:
        """Where vectors begin; the `last` of a row of the output ends with it."""
        width, lanes = self.planes.size[1], self.planes.lanes
        if last and width % lanes:
            starts[-1] = tirx.min(starts[-1], statements.long(max(0, width - lanes)))
        return starts

    def _copy(self, band: Any, base: Expr, plane: list[Expr], y: Expr) -> Statement:
        """A row of the image in phases, with zeros around it; zeros alone outside of the image."""
        row, (image, _) = self.row, self.planes.operands
        zeros: list[Statement] = []
        for phase in range(row.stride):
            start, end = phase * row.length, (phase + 1) * row.length
            last = start + row.before + row.count(phase)
            zeros += self._zeros(band, base, start, start + row.before)
            # Whole vectors: the copy then writes over what was too much.
            zeros += self._zeros(
                band, base, end - -(-(end - last) // self._lanes) * self._lanes, end
            )
        parts = self._parts(band, base, [*plane, y])
        blank = self._zeros(band, base, 0, row.size)
        inside = tirx.all(y >= 0, y < image.shape[2])
        padded = self._pads
        copied = statements.sequence(parts)
        whole = tirx.IfThenElse(inside, copied, statements.sequence(blank)) if padded else copied
        return statements.sequence([*zeros, whole])

    @property
    def _lanes(self) -> int:
        return self.planes.lanes

    @property
    def _pads(self) -> bool:
        """Whether a band may read rows outside of the image."""
        planes = self.planes
        stride, top = planes.window[0], planes.window[4]
        last = (planes.size[0] - 1) * stride - top + self._reach
        return top > 0 or last > int(planes.operands[0].shape[2])

    def _zeros(self, band: Any, base: Expr, start: int, end: int) -> list[Statement]:
        """Zeros from one place of a row to another, in vectors that lie within the row."""
        if start >= end:
            return []
        lanes = self._lanes
        at = statements.counter("zero")
        store = tirx.BufferStore(
            band,
            tirx.Broadcast(tirx.const(0, str(band.dtype)), lanes),
            [statements.ramp(base + start + at * lanes, lanes)],
        )
        return [statements.loop(at, (end - start) // lanes, store)]

    def _parts(self, band: Any, base: Expr, place: list[Expr]) -> list[Statement]:
        """The image's own columns, phase by phase."""
        row, image = self.row, self.planes.operands[0]
        lanes, stride = self._lanes, row.stride
        whole = row.width // stride

        def put(phase: int, column: Expr, value: Expr, width: int) -> Statement:
            at = base + (phase * row.length + row.before) + column
            return tirx.BufferStore(band, value, [statements.ramp(at, width) if width > 1 else at])

        def vector(first: Expr) -> Statement:
            loads = [
                image[*place, statements.ramp(first * stride + i * lanes, lanes)]
                for i in range(stride)
            ]
            return statements.sequence(
                [put(p, first, _every(loads, p, stride, lanes), lanes) for p in range(stride)]
            )

        def element(column: Expr, phase: int) -> Statement:
            return put(phase, column, image[*place, column * stride + phase], 1)

        parts: list[Statement] = []
        if stride <= _SHUFFLED and whole >= lanes:
            parts += self._covered(whole, lanes, vector)
            done = whole
        elif stride == 1:
            loads = image[*place, statements.ramp(statements.long(0), whole) if whole > 1 else 0]
            parts.append(put(0, statements.long(0), loads, whole))
            done = whole
        else:
            done = 0
        for phase in range(stride):
            left = row.count(phase) - done
            if left:
                at = statements.counter("column")
                parts.append(statements.loop(at, left, element(at + done, phase)))
        return parts

    def _covered(
        self, count: int, width: int, made: Callable[[Expr], Statement]
    ) -> list[Statement]:
        """Vectors that cover a stretch; the last one overlaps that before it."""
        at = statements.counter("vector")
        loop = statements.loop(at, count // width, made(at * width))
        return [loop, made(statements.long(count - width))] if count % width else [loop]

    def _tile(
        self, band: Any, plane: list[Expr], rows: tuple[Expr, Expr], starts: list[Expr]
    ) -> Statement:
        """Sum a tile of the output in registers, and write what the output makes of it.

        Each of its rows has a vector at every one of the `starts`.
        """
        planes, lanes = self.planes, self._lanes
        height, vectors = self.point["rows"], len(starts)
        sums = statements.scratch(height * vectors * lanes, band.dtype)
        weights = planes.operands[1]
        start = rows[1] * (planes.window[0] * self.row.size)
        made: list[Statement] = []
        begun: set[int] = set()
        for line, kw, row, kh in self._order():
            column = kw * planes.window[3] - planes.window[5]
            weight = tirx.Broadcast(weights[plane[1], kh, kw], lanes)
            for v in range(vectors):
                own = row * vectors + v
                at = start + starts[v] + (line * self.row.size + self.row.place(column))
                value = band[statements.ramp(at, lanes)] * weight
                place = [statements.ramp(own * lanes, lanes)]
                made.append(
                    tirx.BufferStore(sums, sums[place[0]] + value if own in begun else value, place)
                )
                begun.add(own)
        width = min(planes.size[1], lanes)
        for own in range(height * vectors):
            row, v = divmod(own, vectors)
            lane = statements.counter("lane")
            places = [*plane, rows[0] + rows[1] + row, starts[v] + lane]
            store = self._output(places, sums[own * lanes + lane])
            kind = tirx.ForKind.VECTORIZED if width > 1 else tirx.ForKind.SERIAL
            made.append(statements.loop(lane, width, store, kind))
        return statements.with_buffers(made, [sums])

    def _order(self) -> Iterator[tuple[int, int, int, int]]:
        """Line of the band, column of the window, row of the tile and of the window.

        Ordered by what is loaded.
        """
        stride, _, dilation, *_ = self.planes.window
        height, width = self.planes.kernel
        for line in range((self.point["rows"] - 1) * stride + self._reach):
            under = [
                (row, kh)
                for row in range(self.point["rows"])
                for kh in range(height)
                if row * stride + kh * dilation == line
            ]
            for kw in range(width):
                yield from ((line, kw, row, kh) for row, kh in under)

    def _output(self, places: list[Expr], made: Expr) -> Statement:
        """The output's own store, of an element that was summed."""
        product, output = self.planes.product, self.planes.output
        values = dict(zip(output.spatial, places, strict=True))

        def load(node: Any) -> Any:
            return made if node.source.same_as(product.body.buffer) else node

        value = structural_map(
            vector_loops.substitute(output.body.value, values), (TensorLoad, load)
        )
        return tirx.BufferStore(output.body.buffer, value, places)


def _every(loads: list[Expr], phase: int, stride: int, lanes: int) -> Expr:
    """The elements of a phase out of as many vectors as there are phases."""
    if stride == 1:
        return loads[0]
    picked = [tirx.const(phase + stride * lane, "int32") for lane in range(lanes)]
    return tirx.Shuffle(loads, picked)
