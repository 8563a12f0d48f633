"""Loops for windows taken apart: rows of the output, several at a time, in two steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map

from hybridc.schedules.loops import statements, vector_loops
from hybridc.schedules.rows import image_boxes, moving_windows
from hybridc.schedules.rows.groups import Groups, Row
from hybridc.schedules.rows.image_boxes import Box
from hybridc.schedules.rows.moving_windows import Windows

Expr = Any  # tvm.ir.Expr
Statement = Any  # tvm.tirx.Stmt
Places = Mapping[Any, Expr]

# Rows, and columns of them, that are stored before the first are read again: a vector that lies
# across two that were just stored waits until both are in the cache.
_ROWS, _COLUMNS = 8, 256
# Planes for each thread that even out what is left over.
_TASKS = 4
# Strides up to which columns are picked out of vectors by shuffles.
_SHUFFLED = 4


@dataclass(frozen=True)
class Writer:
    """Writes the loops of one kernel, with `panel` channels for each task."""

    windows: Windows
    panel: int

    @property
    def lanes(self) -> int:
        """The lanes of a vector of what is reduced."""
        return self.windows.target.lanes(self.windows.dtype)

    def body(self, threads: bool) -> Statement:
        """The root block with all loops: over planes, or first over rows where planes are few."""
        boxes = sorted(image_boxes.boxes(self.windows), key=lambda box: -box.size)
        planes = self._panels * prod(self._free.values())
        if not threads or planes >= _TASKS * self.windows.target.threads:
            loops = [self._loop(boxes, threads, spread=False)]
        else:
            loops = [self._loop(boxes[:1], threads, spread=True)]
            loops += [self._loop(boxes[1:], threads, spread=False)] if boxes[1:] else []
        root = self.windows.func.body.block
        made = statements.sequence(loops)
        block = s_tir.SBlock([], root.reads, root.writes, root.name_hint, made)
        return s_tir.SBlockRealize([], True, block)

    @property
    def _free(self) -> dict[Any, int]:
        """The axes over whose places all rows are alike, with their extents."""
        ranged = {hash(axis) for axis in image_boxes.ranged(self.windows)}
        outer = {axis: self.windows.block.spatial[axis] for axis in self.windows.outer}
        return {axis: extent for axis, extent in outer.items() if hash(axis) not in ranged}

    @property
    def _panels(self) -> int:
        inner = self.windows.inner
        return self.windows.block.spatial[inner[-1]] // self.panel if inner else 1

    def _loop(self, boxes: Sequence[Box], threads: bool, spread: bool) -> Statement:
        """A task for each plane, with all rows in these boxes; or for groups of rows of one box."""
        task = statements.counter("task")
        channel, rest, count = task % self._panels * self.panel, task // self._panels, self._panels
        made: list[Statement] = []
        for box in boxes:
            loops = self._groups(box)
            counters = [statements.counter("group") for _ in loops]
            values = list(counters)
            if spread:
                for i in reversed(range(len(loops))):
                    values[i], rest = rest % loops[i].count, rest // loops[i].count
                    count *= loops[i].count
            places = {loop.axis: loop.first(v) for loop, v in zip(loops, values, strict=True)}
            left = rest
            for axis, extent in reversed(self._free.items()):
                places[axis], left = left % extent, left // extent
            body = self._rows(places, channel, box, loops[-1] if loops else None)
            if not spread:
                for counter, loop in reversed(list(zip(counters, loops, strict=True))):
                    body = statements.loop(counter, loop.count, body)
            made.append(body)
        count *= prod(self._free.values())
        kind = tirx.ForKind.PARALLEL if threads and count > 1 else tirx.ForKind.SERIAL
        return statements.loop(task, count, statements.sequence(made), kind)

    def _groups(self, box: Box) -> list[Groups]:
        """Loops over the rows in a box, of which the last one takes several at a time."""
        ranged = image_boxes.ranged(self.windows)
        fits = moving_windows.ROW_BYTES // 2 // (self._size * self.windows.itemsize)
        wanted = min(_ROWS, -(-_COLUMNS // self._size), fits)
        made: list[Groups] = []
        for axis, (start, stop) in zip(ranged, box.ranges, strict=True):
            last = axis.same_as(self.windows.outer[-1])
            groups = -(-(stop - start) // max(1, wanted)) if last else stop - start
            made.append(Groups(axis, start, stop, -(-(stop - start) // groups)))
        return made

    @property
    def _size(self) -> int:
        """The elements of a row of columns."""
        if self.windows.inner:
            return self.windows.columns * self.panel * self._depth
        reach = self._shift + self.windows.columns + self.windows.stride * self.lanes
        return -(-reach // self.lanes) * self.lanes

    @property
    def _shift(self) -> int:
        """Elements before a row, with which its longest stretch is aligned."""
        if self.windows.inner:
            return 0
        _, first = max((last - first, first) for first, last, _ in self.windows.parts())
        return -first % self.lanes

    def _rows(self, places: Places, channel: Expr, box: Box, group: Groups | None) -> Statement:
        """Some rows of the output, of the channels from this one."""
        count = group.rows if group else 1
        row = statements.scratch(count * self._size, self.windows.dtype)

        def each(body: Callable[[Places, Expr], list[Statement]]) -> Statement:
            if group is None or count == 1:
                return statements.sequence(body(places, statements.long(self._shift)))
            counter = statements.counter("row")
            here = {**places, group.axis: places[group.axis] + counter}
            return statements.loop(
                counter, count, statements.sequence(body(here, counter * self._size + self._shift))
            )

        first = each(
            lambda here, base: [
                self._stretch(Row(row, base), here, channel, part) for part in box.parts
            ]
        )
        second = each(lambda here, base: [self._columns(Row(row, base), here, channel)])
        return statements.with_buffers([first, second], [row])

    @property
    def _depth(self) -> int:
        """Elements of a column for each of its last axis."""
        inner = self.windows.inner
        return self.windows.channels // self.windows.block.spatial[inner[-1]]

    def _stretch(
        self, row: Row, places: Places, channel: Expr, part: tuple[int, int, tuple[Expr, ...]]
    ) -> Statement:
        """The rows of windows reduced, for the columns from one to another."""
        first, last, terms = part
        windows = self.windows

        def store(at: Expr, to: Expr, others: Places) -> Statement:
            values = [_on(term, {**places, **others, windows.at: at}) for term in terms]
            return self._combined(
                row.buffer,
                [row.place(to)],
                [_cast(v, windows.dtype) for v in values or [windows.neutral]],
            )

        if not windows.inner:
            return self._strip(last - first, lambda at: store(first + at, first + at, {}))
        column = statements.counter("column")
        body = self._channels(
            channel,
            lambda place, others: store(first + column, self._place(first + column, place), others),
        )
        return statements.loop(column, last - first, body)

    def _combined(self, buffer: Any, indices: list[Expr], values: Sequence[Expr]) -> Statement:
        """Combine values in a register: one after another, for what NaN makes of them is long."""
        first, *others = values
        made = [tirx.BufferStore(buffer, first, indices)]
        for value in others:
            here = buffer[indices[0]]
            made.append(tirx.BufferStore(buffer, self.windows.combine(here, value), indices))
        return statements.sequence(made)

    def _place(self, column: Expr, place: Expr) -> Expr:
        """Where an element of a column lies in the row."""
        return column * (self.panel * self._depth) + place

    def _channels(self, channel: Expr, *bodies: Callable[[Expr, Places], Statement]) -> Statement:
        """The elements of a column, by their places in it and as values of its axes."""
        *upper, last = self.windows.inner
        counters = [(axis, statements.counter("k")) for axis in upper]
        start: Expr = statements.long(0)
        for axis, counter in counters:
            start = start * self.windows.block.spatial[axis] + counter

        def element(body: Callable[[Expr, Places], Statement]) -> Callable[[Expr], Statement]:
            return lambda at: body(start * self.panel + at, {**dict(counters), last: channel + at})

        made = self._strip(self.panel, *map(element, bodies))
        for axis, counter in reversed(counters):
            made = statements.loop(counter, self.windows.block.spatial[axis], made)
        return made

    def _columns(self, row: Row, places: Places, channel: Expr) -> Statement:
        """Reduce the windows' columns, and write what the output makes of that."""
        windows = self.windows
        count = windows.block.spatial[windows.column]
        if not windows.inner:
            return self._vectors(row, places, count)
        column = statements.counter("column")
        tile = statements.scratch(self.panel * self._depth, windows.dtype)

        def combine(place: Expr, _others: Places) -> Statement:
            taps = [
                row[self._place(column * windows.stride + tap * windows.dilation, place)]
                for tap in range(windows.taps)
            ]
            return self._combined(tile, [place], taps)

        def store(place: Expr, others: Places) -> Statement:
            return self._output({**places, **others, windows.column: column}, tile[place])

        loop = statements.loop(column, count, self._channels(channel, combine, store))
        return statements.with_buffers([loop], [tile])

    def _vectors(self, row: Row, places: Places, count: int) -> Statement:
        """Vectors of neighbouring windows; the last one overlaps that before it."""
        windows, lanes = self.windows, self.lanes

        def vector(first: Expr) -> Statement:
            tile = statements.scratch(lanes, windows.dtype)
            taps = [self._picked(row, first, tap * windows.dilation) for tap in range(windows.taps)]
            made = self._combined(tile, [statements.ramp(0, lanes)], taps)
            lane = statements.counter("lane")
            store = self._output({**places, windows.column: first + lane}, tile[lane])
            kind = tirx.ForKind.VECTORIZED if count > 1 else tirx.ForKind.SERIAL
            out = statements.loop(lane, min(lanes, count), store, kind)
            return statements.with_buffers([made, out], [tile])

        return self._cut(count, vector)

    def _picked(self, row: Row, first: Expr, offset: int) -> Expr:
        """Lanes of the row, a stride apart."""
        stride, lanes = self.windows.stride, self.lanes
        if stride == 1:
            return row[statements.ramp(first + offset, lanes)]
        if stride > _SHUFFLED:
            return row[tirx.Ramp(first * stride + offset, statements.long(stride), lanes)]
        start, phase = offset // stride * stride, offset % stride
        parts = [
            row[statements.ramp(first * stride + (start + i * lanes), lanes)] for i in range(stride)
        ]
        picked = [tirx.const(phase + stride * lane, "int32") for lane in range(lanes)]
        return tirx.Shuffle(parts, picked)

    def _output(self, places: Places, made: Expr) -> Statement:
        """The output's own store, of an element that was reduced."""
        block, output = self.windows.block, self.windows.output
        values = dict(zip(output.spatial, (places[axis] for axis in block.spatial), strict=True))
        own = str(block.body.buffer.dtype)

        def load(node: Any) -> Any:
            return _cast(made, own) if node.source.same_as(block.body.buffer) else node

        value = structural_map(_on(output.body.value, values), (TensorLoad, load))
        return tirx.BufferStore(output.body.buffer, value, list(values.values()))

    def _strip(self, count: int, *bodies: Callable[[Expr], Statement]) -> Statement:
        """A stretch of elements in vectors, for which one thing is done after another."""
        wide = min(self.lanes, count)

        def lanes(first: Expr, body: Callable[[Expr], Statement]) -> Statement:
            lane = statements.counter("lane")
            kind = tirx.ForKind.VECTORIZED if wide > 1 else tirx.ForKind.SERIAL
            return statements.loop(lane, wide, body(first + lane), kind)

        return self._cut(
            count, lambda first: statements.sequence([lanes(first, body) for body in bodies])
        )

    def _cut(self, count: int, vector: Callable[[Expr], Statement]) -> Statement:
        """Vectors that cover a stretch; the last one overlaps that before it."""
        wide = min(self.lanes, count)
        whole, rest = divmod(count, wide)
        place = statements.counter("vector")
        made = statements.loop(place, whole, vector(place * wide))
        last = [vector(statements.long(count - wide))] if rest else []
        return statements.sequence([made, *last])


def _cast(value: Expr, dtype: str) -> Expr:
    return value if str(value.ty.dtype) == dtype else tirx.Cast(dtype, value)


def _on(expr: Expr, values: Places) -> Expr:
    """An expression with values for the variables of the block."""
    return vector_loops.substitute(expr, dict(values)) if values else expr
