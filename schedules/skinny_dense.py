"""Matrix products of few rows, as in decoding: as fast as the weights come from memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import Target
from hybridc.schedules import _dense, _figures, _tiling
from hybridc.schedules._contraction import Contraction

# Multiply-adds of a vector of weights take as long as its way from memory at about this many rows:
# one a cycle of 64 bytes, against 4 bytes a cycle for each of several cores.
_MOST_ROWS = 16
# Panels of two vectors are two streams from memory for each thread; with four, eight or one,
# threads got less of it (Zen 4).
_VECTORS = 2
# Rows up to which tiles of one vector keep up, where panels do not come in pairs: they load an
# operand for each multiply-add.  16 x 1024 x 1000 took 406 us from memory so, 298 as other products
# are tiled, 8 x 1024 x 1000 277 and 218, 4 x 1024 x 1000 179 and 160 (Zen 3, 2 threads).
_ROWS_ALONE = 4
# Rows beyond which broadcasts of activations crowd out the loads of weights.
_ROWS = 8


@dataclass(frozen=True)
class SkinnyDense(ScheduleRule):
    """Schedule products of up to 16 rows with packed weights, which are read once, in order."""

    priority: ClassVar[int] = 82

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take products of few rows whose weights fit no cache of a core."""
        match = _dense.match(func, target)
        if isinstance(match, NotApplicable):
            return match
        problem = match.problem
        if problem.rows > _MOST_ROWS:
            return NotApplicable(f"it has {problem.rows} rows, more than {_MOST_ROWS}")
        if problem.depth * problem.columns * 4 <= target.l2:
            return NotApplicable("its weights fit the L2 cache")
        if problem.rows > _ROWS_ALONE and problem.panels(1) % _VECTORS:
            return NotApplicable(
                f"its panels are no pairs, and it has more than {_ROWS_ALONE} rows"
            )
        return match

    def knobs(self, match: Contraction) -> Space:
        """Rows and vectors of the register tile; row tiles and panels of a task."""
        return _tiling.space(match.problem, match.target)

    def default(self, match: Contraction, target: Target) -> Point:
        """Two vectors by as many rows as registers hold; each panel meets all rows at once."""
        problem = match.problem
        even = problem.panels(1) % _VECTORS == 0
        vectors = _VECTORS if even else 1
        fitting = [r for r, v in _tiling.tiles(target) if v == vectors and r <= _ROWS]
        tiles = -(-problem.rows // max(fitting))
        rows = -(-problem.rows // tiles)
        return {"rows": rows, "vectors": vectors, "chunk": problem.units(rows), "panels": 1}

    def figures(self, match: Contraction, point: Point) -> Mapping[str, float]:
        """Those of a tiled kernel."""
        return _figures.tiled(match.problem, self.canonical(match, point), match.target)

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile as every product with packed weights is tiled."""
        return _dense.schedule(match, point)

    def canonical(self, match: Contraction, point: Point) -> Point:
        """A tile no larger than the kernel; tasks of whole parts of it."""
        return _tiling.canonical(match.problem, point)

    def estimate(self, match: Contraction, point: Point) -> float:
        """The analytic model's cycles."""
        return _tiling.estimate(match.problem, self.canonical(match, point), match.target)
