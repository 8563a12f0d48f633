"""Matrix products with packed weights, and 1x1 convolutions, which are the same."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules.products import packed
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.tiled import Tiled


@dataclass(frozen=True)
class Dense(Tiled):
    """Schedule `x[..., k] * w[n, k]` with packed weights: register tiles, tasks over threads."""

    priority: ClassVar[int] = 80

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `pack-weights` made from a matrix product or a 1x1 convolution."""
        return packed.match(func, target)

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile as every product with packed weights is tiled."""
        return packed.schedule(match, point)
