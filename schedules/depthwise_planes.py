"""Depthwise 2-D convolution, channels first."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler import strips
from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.kernels.convolutions import depthwise_planes
from hybridc.compiler.kernels.tensor_expressions import kinds_in
from hybridc.compiler.target import Target
from hybridc.schedules.loops import analysis, transforms
from hybridc.schedules.rows import moving_windows, plane_loops
from hybridc.schedules.rows.planes import Planes

# Accumulators that leave registers to what is loaded, and multiply-adds that one tile unrolls.
_ACCUMULATORS, _UNROLLED = 10, 640
# Cycles of a load of any alignment: two a cycle, but nearly half of them lie across two lines.
_LOAD, _BROADCAST = 0.72, 0.5
# Cycles around the sums of a tile, and of each of its vectors: addresses, epilogue, store.
_TILE, _VECTOR = 3, 1
# Cycles until a sum may be added to, the share of them that nothing fills, and the instructions
# among which a core finds something to fill them with.
_LATENCY, _IDLE, _WINDOW = 4, 0.8, 256


@dataclass(frozen=True)
class DepthwisePlanes(ScheduleRule):
    """Depthwise convolution plane by plane: padded rows in the L1 cache, vectors along them."""

    priority: ClassVar[int] = 64

    def match(self, func: PrimFunc, target: Target) -> Planes | NotApplicable:
        """Take kernels that `depthwise-planes` made, with what is elementwise behind them."""
        if depthwise_planes.KIND not in kinds_in(func) or strips.has_gaps(func):
            return NotApplicable("it is not a depthwise convolution of planes")
        if len(analysis.outputs(func, analysis.blocks(func))) != 1:
            return NotApplicable("it has several outputs")
        staged, _ = transforms.stage(func)
        found = analysis.blocks(staged)
        if len(found) != len(("product", "output")) or not moving_windows.in_place(*found):
            return NotApplicable("what follows it is not elementwise")
        product, output = found
        return Planes(func, target, product, output, analysis.worth_threads(staged, target))

    def knobs(self, match: Planes) -> Space:
        """`rows` and `vectors` of a tile; `threads` over bands of planes, or one thread."""
        tiles = _tiles(match)
        rows, vectors = (tuple(sorted({tile[i] for tile in tiles})) for i in (0, 1))
        return {"rows": rows, "vectors": vectors, "threads": (0, 1)}

    def default(self, match: Planes, target: Target) -> Point:
        """The tile of the least cycles, ragged ones counted in."""
        rows, vectors = min(_tiles(match), key=lambda tile: _cycles(match, *tile))
        return {"rows": rows, "vectors": vectors, "threads": int(match.threads)}

    def canonical(self, match: Planes, point: Point) -> Point:
        """A tile no larger than the image, whose sums find registers."""
        rows = min(point["rows"], match.size[0])
        vectors = min(point["vectors"], match.vectors, max(1, _ACCUMULATORS // rows))
        return {**point, "rows": rows, "vectors": vectors}

    def schedule(self, match: Planes, point: Point) -> Schedule:
        """A loop over bands of planes: rows padded, then tiles of sums over their windows."""
        body = plane_loops.Writer(match, self.canonical(match, point)).body()
        return transforms.new_schedule(transforms.with_own_names(match.func.with_body(body)))


def _tiles(match: Planes) -> list[tuple[int, int]]:
    """Rows and vectors of the tiles whose sums find registers and whose code stays short."""
    return [
        (rows, vectors)
        for rows in range(1, min(_ACCUMULATORS, match.size[0]) + 1)
        for vectors in range(1, min(_ACCUMULATORS // rows, match.vectors) + 1)
        if rows * vectors == 1 or rows * vectors * match.taps <= _UNROLLED
    ]


def _cycles(match: Planes, rows: int, vectors: int) -> float:
    """Cycles of the tiles of one plane."""
    tiles, rest = divmod(match.vectors, vectors)
    each = tiles * _tile_cycles(match, rows, vectors)
    each += _tile_cycles(match, rows, rest) if rest else 0
    return -(-match.size[0] // rows) * each


def _tile_cycles(match: Planes, rows: int, vectors: int) -> float:
    """Multiply-adds two a cycle, or the loads: of the image, and of weights that do not stay."""
    sums, lines = rows * vectors, match.lines(rows)
    resident = match.taps + sums + vectors <= match.target.vector_registers
    loads = lines * match.kernel[1] * vectors * _LOAD
    loads += 0 if resident else rows * match.taps * _BROADCAST
    # The sums that a line of the image is added to wait for each other, unless those of the next
    # tile are at hand.
    ahead = min(1.0, (sums * match.taps + loads / _LOAD) / _WINDOW)
    waits = lines * match.kernel[1] * _LATENCY * _IDLE * ahead
    return max(sums * match.taps / 2, loads, waits) + _TILE + _VECTOR * sums
