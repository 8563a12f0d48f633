"""Matrix products of few rows, as in decoding: as fast as the weights come from memory."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.kernels.products.packing import FEW_ROWS, waits_for_weights
from hybridc.compiler.target import Target
from hybridc.schedules.products import contraction, packed, registers
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.tiled import Tiled

# Vectors of a panel, which are as many streams from memory for each thread; with one, threads get
# less of it than with two on every CPU.
_VECTORS = 2
# Rows up to which tiles of one vector keep up, where panels do not come in pairs: they load an
# operand for each multiply-add.  16 x 1024 x 1000 took 406 us from memory so, 298 as other products
# are tiled, 8 x 1024 x 1000 277 and 218, 4 x 1024 x 1000 179 and 160 (Zen 3, 2 threads).
_ROWS_ALONE = 4
# Rows beyond which broadcasts of activations crowd out the loads of weights.
_ROWS = 8


@dataclass(frozen=True)
class Skinny(Contraction):
    """A product of few rows, whose weights are so many `panels` of one vector each."""

    panels: int

    @property
    def pairs(self) -> bool:
        """Whether panels come in pairs: `pack-weights` puts one of zeros behind an odd number."""
        return self.panels % _VECTORS == 0


@dataclass(frozen=True)
class SkinnyDense(Tiled):
    """Schedule products of up to 16 rows with packed weights, which are read once, in order."""

    priority: ClassVar[int] = 82

    def match(self, func: PrimFunc, target: Target) -> Skinny | NotApplicable:
        """Take products of few rows whose weights fit no cache of a core."""
        match = packed.match(func, target)
        if isinstance(match, NotApplicable):
            return match
        problem = match.problem
        if problem.rows > FEW_ROWS:
            return NotApplicable(f"it has {problem.rows} rows, more than {FEW_ROWS}")
        if not waits_for_weights(problem.rows, problem.depth, problem.columns, target):
            return NotApplicable("its weights fit the L2 cache")
        found = Skinny(func, target, problem, _panels(func))
        if problem.rows > _ROWS_ALONE and not found.pairs:
            return NotApplicable(
                f"its panels are not pairs, and it has more than {_ROWS_ALONE} rows"
            )
        return found

    def default(self, match: Skinny, target: Target) -> Point:
        """Two vectors by as many rows as registers hold; each panel meets all rows at once.

        Of few rows as many as there are to be streams, where these divide the panels.
        """
        problem, streams = match.problem, target.machine.streams
        vectors = _VECTORS if match.pairs else 1
        if problem.rows <= _ROWS_ALONE and match.panels % streams == 0:
            vectors = streams
        fitting = [r for r, v in registers.tiles(target) if v == vectors and r <= _ROWS]
        tiles = -(-problem.rows // max(fitting))
        rows = -(-problem.rows // tiles)
        return {"rows": rows, "vectors": vectors, "chunk": problem.units(rows), "panels": 1}

    def schedule(self, match: Skinny, point: Point) -> Schedule:
        """Tile as every product with packed weights is tiled."""
        return packed.schedule(match, point)


def _panels(func: PrimFunc) -> int:
    """The panels of packed weights, those of zeros counted in."""
    schedule = contraction.new_schedule(func)
    weight = schedule.get(contraction.product_of(schedule)).reads[1].source
    return int(weight.shape[0])
