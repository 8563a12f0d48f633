"""Products of two activations of open sizes, read as they lie."""

from dataclasses import dataclass
from typing import ClassVar

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
from hybridc.schedules.products import accumulators, contraction, tiling

# Vectors side by side in a tile, and rows: as many accumulators as hide the latency of a
# multiply-add, with registers left for what they are made of.  A single row has that many vectors,
# so that it reads whole rows of the other operand.
_VECTORS = 2
_ROWS = 4


@dataclass(frozen=True)
class MatmulMatch(Match):
    """A strip of a product: its rows and columns, which are fixed; the depth may be open."""

    rows: int
    columns: int


@dataclass(frozen=True)
class Matmul(ScheduleRule):
    """Schedule `a[..., m, k] * b[..., k, n]` as register tiles, without packing b.

    The depth, which may be open, is the outer loop of a tile; tiles are one task after another,
    since strips of an open size are spread over threads.
    """

    priority: ClassVar[int] = 58

    def match(self, func: PrimFunc, target: Target) -> MatmulMatch | NotApplicable:
        """Take products whose second operand lies as it is read, along its columns."""
        found = contraction.find_product(func, "matmul")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        kept = [axis for axis in schedule.get(product).iter_vars if int(axis.iter_type) == 0]
        try:
            sizes = [int(axis.dom.extent) for axis in kept]
        except TypeError:
            return NotApplicable("its rows or columns are open")
        if len(sizes) < 2:
            return NotApplicable("it has no rows and columns")
        return MatmulMatch(func, target, sizes[-2], sizes[-1])

    def knobs(self, match: MatmulMatch) -> Space:
        """Rows of a tile, and its vectors of columns."""
        return {"rows": (1, 2, 4, 6), "vectors": (1, 2, 4, 8)}

    def default(self, match: MatmulMatch, target: Target) -> Point:
        """Eight accumulators."""
        rows = min(_ROWS, match.rows)
        return {"rows": rows, "vectors": _VECTORS * _ROWS if rows == 1 else _VECTORS}

    def schedule(self, match: MatmulMatch, point: Point) -> Schedule:
        """Tile rows and columns; what follows the product is computed tile by tile."""
        schedule = contraction.new_schedule(match.func)
        product = contraction.product_of(schedule)
        store = contraction.inline_epilogue(schedule, product)
        lanes = tiling.divisor_below(match.columns, match.target.lanes())
        vectors = tiling.divisor_below(match.columns // lanes, point["vectors"])
        *outer, rows, columns = schedule.get_loops(store)
        height = tiling.divisor_below(match.rows, point["rows"])
        row_tile, row = schedule.split(rows, [None, height])
        panel, column = schedule.split(columns, [None, vectors * lanes])
        part, lane = schedule.split(column, [None, lanes])
        schedule.reorder(*outer, row_tile, panel, row, part, lane)
        contraction.straighten(schedule, lane, row, part)
        accumulators.accumulate_at(schedule, product, panel, lanes)
        return schedule

    def canonical(self, match: MatmulMatch, point: Point) -> Point:
        """A tile that divides the strip."""
        lanes = tiling.divisor_below(match.columns, match.target.lanes())
        return {
            "rows": tiling.divisor_below(match.rows, point["rows"]),
            "vectors": tiling.divisor_below(match.columns // lanes, point["vectors"]),
        }
