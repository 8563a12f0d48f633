"""How tiles of a product's operands come to shared memory.

A tile has rows of 128 bytes along the depth, the `own` axis over rows; or, where 16-bit elements
are contiguous along their own axis, a row for each step of the depth.  Chunks of 16 bytes are
swapped within a row by its number, so that eight rows' chunks of one place lie in all banks.  This
is the layout that the PTX manual calls a swizzle of 128 bytes, as `wgmma` reads it too.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

from tvm import tirx
from tvm.ir.expr import Call, TensorLoad
from tvm.ir.prim import expr as prim

from hybridc.schedules.cuda import packed_weights, tir
from hybridc.schedules.cuda.packed_weights import Weights
from hybridc.schedules.cuda.product_kernel import Axes, Operand, Product, substituted
from hybridc.schedules.loops import access, analysis

ROW_BYTES = 128
CHUNK_BYTES = 16
CHUNKS = ROW_BYTES // CHUNK_BYTES
# 128 bytes of each of the 64 rows of a tile by depth.
PANEL_BYTES = ROW_BYTES // 2 * ROW_BYTES
_WORD = 4
_WORDS_PANEL_BYTES = ROW_BYTES // _WORD * ROW_BYTES
_UNROLLED = 8

# Bytes of neighbours that are copied at once, where whole chunks are not aligned or not there.
_PIECES = (CHUNK_BYTES, 8, 4)

# How elements are copied: pieces along the depth, pieces along the own axis, words of 4 bytes one
# by one, or elements through registers, which may be computed on the way; or weights as they lie.
How = Literal["depth", "own", "words", "elements", "packed"]
Expr = Any


@dataclass(frozen=True)
class Source:
    """An operand and how it is read: `load` where `condition` holds (None: everywhere).

    By depth and by the own axis `piece` bytes are copied at once.
    """

    operand: Operand
    batch: Axes
    depth: Axes
    how: How
    load: Any = None
    condition: Expr | None = None
    piece: int = CHUNK_BYTES
    weights: Weights | None = None

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return size_of(self.operand)

    @property
    def chunk(self) -> int:
        """Elements of a chunk."""
        return CHUNK_BYTES // self.size

    @property
    def step(self) -> int:
        """Elements of the depth in a tile."""
        return ROW_BYTES // self.size

    @property
    def copies(self) -> int:
        """Copies for a row or a column of a tile: pieces, words, or elements."""
        if self.weights is not None:
            return self.step // (self.weights.deep * self.weights.wide)
        if self.how in ("depth", "own"):
            return ROW_BYTES // self.piece
        return ROW_BYTES // self.size

    @property
    def beside(self) -> int:
        """Elements of a piece."""
        return self.piece // self.size

    @property
    def by_depth(self) -> bool:
        """Whether tiles have a row for each step of the depth."""
        return self.how == "own"

    def bytes(self, own: int) -> int:
        """Bytes of a tile with so many rows or columns."""
        return own * ROW_BYTES


def source(operand: Operand, product: Product, by_depth: Sequence[int] = (2,)) -> Source:
    """The widest way to copy an operand; of elements of which sizes, tiles may be by depth."""
    load, condition = plain(operand.value)
    size = size_of(operand)
    places = (product.batch, product.depth)
    if (weights := packed_weights.weights(product, operand)) is not None:
        return Source(operand, *places, "packed", weights=weights)
    if load is None or str(load.ty.dtype) != operand.dtype:
        return Source(operand, *places, "elements")
    for piece in _PIECES:
        beside = piece // size
        if beside > 1 and contiguous(operand, load, product.depth, beside):
            return Source(operand, *places, "depth", load, condition, piece)
        if size in by_depth and operand.own and contiguous(operand, load, operand.own, beside):
            return Source(operand, *places, "own", load, condition, piece)
    if size == _WORD:
        return Source(operand, *places, "words", load, condition)
    return Source(operand, *places, "elements")


def size_of(operand: Operand) -> int:
    """Bytes of an element."""
    return analysis.bits(operand.dtype) // 8


def plain(value: Expr) -> tuple[Any, Expr | None]:
    """A load, and the condition without which it is zero; no load for any other expression."""
    if isinstance(value, TensorLoad):
        return value, None
    if isinstance(value, Call) and access.conditional(value):
        condition, load, other = value.args
        zero = isinstance(other, prim.FloatImm | prim.IntImm) and float(other.value) == 0.0
        if isinstance(load, TensorLoad) and zero:
            return load, condition
    return None, None


def contiguous(operand: Operand, load: Any, axes: Axes, chunk: int) -> bool:
    """Whether chunks along the last axis are one aligned piece of memory, wholly there or not."""
    axis, extent = axes[-1]
    if extent % chunk or access.stride(load.indices, load.source, axis) != 1:
        return False
    divisor = access.lane_divisor(operand.value, axis)
    return divisor % chunk == 0 and access.aligned(load.indices, load.source, axis, chunk)


@dataclass(frozen=True)
class Place:
    """Where a block's tile begins: its batch, its first row or column, and the threads' number."""

    batch: Mapping[Any, Expr]
    first: Expr
    own: int
    thread: Expr
    threads: int


@dataclass(frozen=True)
class Tile:
    """A tile of an operand, that of the depth's `step`, and where it goes in shared memory."""

    source: Source
    place: Place
    step: Expr
    memory: Any
    base: Expr

    def copied(self) -> Any:
        """The copies of this thread."""
        source, own = self.source, self.place.own
        match source.how:
            case "depth":
                return self._turns(own * source.copies, self._row_piece)
            case "own":
                return self._turns(source.step * own // source.beside, self._column_piece)
            case _:
                return self._turns(own * source.step, self._element)

    def _turns(self, count: int, body: Callable[[Expr], Any]) -> Any:
        """Each thread's share of so many copies."""
        threads = self.place.threads

        def turn(i: Expr) -> Any:
            q = i * threads + self.place.thread
            return tir.when([q < count] if count % threads else [], body(q))

        turns = -(-count // threads)
        # Written out, many copies with addresses of their own take all registers.
        return tir.loop(turns, turn, "copy", unroll=turns <= _UNROLLED)

    def _row_piece(self, q: Expr) -> Any:
        source = self.source
        row, piece = q // source.copies, q % source.copies
        k = self.step * source.step + piece * source.beside
        to = self._within(piece, lambda chunk: swizzled(row, chunk))
        return self._copy(self.place.first + row, k, to, source.piece)

    def _column_piece(self, q: Expr) -> Any:
        source, across = self.source, self.place.own // self.source.beside
        row, piece = q // across, q % across
        column = self.place.first + piece * source.beside
        place = swizzled_by_depth if source.size == 2 else panelled
        to = self._within(piece, lambda chunk: place(row, chunk))
        return self._copy(column, self.step * source.step + row, to, source.piece)

    def _within(self, piece: Expr, of_chunk: Callable[[Expr], Expr]) -> Expr:
        """Where a piece lies, by where its chunk does."""
        count = CHUNK_BYTES // self.source.piece
        if count == 1:
            return of_chunk(piece)
        return of_chunk(piece // count) + piece % count * self.source.piece

    def _element(self, q: Expr) -> Any:
        source, own = self.source, self.place.own
        if _own_first(source):
            row, column = q % own, q // own
        else:
            row, column = q // source.step, q % source.step
        to = swizzled(row, column // source.chunk) + column % source.chunk * source.size
        at, k = self.place.first + row, self.step * source.step + column
        if source.how == "words":
            return self._copy(at, k, to, _WORD)
        dtype = source.operand.dtype
        value = substituted(source.operand.value, self.axes(at, k)).astype(dtype)
        if valid := self.inside(at, k):
            value = tirx.if_then_else(tirx.all(*valid), value, tirx.const(0, dtype))
        return tir.call(f"put<{tir.c_type(dtype)}>", self._address(to), value)

    def _copy(self, own: Expr, k: Expr, to: Expr, size: int) -> Any:
        axes = self.axes(own, k)
        valid = self.inside(own, k)
        if self.source.condition is not None:
            valid.append(substituted(self.source.condition, axes))
        count = tir.number(size)
        if valid:
            count = tirx.Select(tir.together(valid), count, tir.number(0))
        load = substituted(self.source.load, axes)
        return tir.call(f"copy{size}", self._address(to), tirx.address_of(load), count)

    def _address(self, to: Expr) -> Expr:
        return tir.address(self.memory, self.base + to)

    def axes(self, own: Expr, k: Expr) -> dict[Any, Expr]:
        """The axes at a place of the operand."""
        return {
            **self.place.batch,
            **tir.unflatten(own, self.source.operand.own),
            **tir.unflatten(k, self.source.depth),
        }

    def inside(self, own: Expr, k: Expr) -> list[Expr]:
        """What must hold lest a copy reads behind the operand; nothing where tiles are whole."""
        extent = self.source.operand.extent
        depth = prod(size for _, size in self.source.depth)
        bounds = [own < extent] if extent % self.place.own else []
        return bounds + ([k < depth] if depth % self.source.step else [])


def _own_first(source: Source) -> bool:
    """Whether neighbouring threads read along the own axis, since that is contiguous."""
    if source.load is None or not source.operand.own:
        return False
    axis, _ = source.operand.own[-1]
    return access.stride(source.load.indices, source.load.source, axis) == 1


def swizzled(row: Expr, chunk: Expr) -> Expr:
    """Where a chunk of a row of 128 bytes lies."""
    return row * ROW_BYTES + (chunk ^ (row & (CHUNKS - 1))) * CHUNK_BYTES


def swizzled_by_depth(row: Expr, chunk: Expr) -> Expr:
    """The same for tiles by depth of elements of 2 bytes, whose rows may be longer.

    128 bytes of every row lie together, then the next 128 of every row.
    """
    return chunk // CHUNKS * PANEL_BYTES + swizzled(row, chunk % CHUNKS)


def panelled(row: Expr, chunk: Expr) -> Expr:
    """The same for elements of 4 bytes, whose rows are read by neighbours, from all banks."""
    return chunk // CHUNKS * _WORDS_PANEL_BYTES + row * ROW_BYTES + chunk % CHUNKS * CHUNK_BYTES
