"""Products of two activations, such as attention's scores and values."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules import _contraction, _dot_products, _tiling
from hybridc.schedules._contraction import Contraction
from hybridc.schedules._tiled import Tiled


@dataclass(frozen=True)
class BatchMatmul(Tiled):
    """Schedule `a[..., m, k] * b[..., k, n]`: pack b, then register tiles as for weights."""

    priority: ClassVar[int] = 60

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `legalize` made from a product of two activations."""
        found = _contraction.find_product(func, "batch-matmul")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        *batch, rows, _, _ = _contraction.extents(schedule, product)
        store = schedule.get_consumers(product)[0]
        columns = _contraction.extents(schedule, store)[-1]
        depth = _contraction.steps(schedule, product)
        size = depth * 4
        problem = _tiling.Problem(
            prod(batch), 1, rows, columns, depth, size, rows * size, target.lanes()
        )
        return Contraction(func, target, problem)

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile, and pack inside each task where a task is one whole product."""
        schedule, product, store = _contraction.opened(match)
        feeding = schedule.get_producers(product)
        tiles = _contraction.tile(match, schedule, product, store, point)
        for pack in feeding:
            if tiles.whole_image and tiles.all_columns:
                schedule.compute_at(pack, tiles.task)
                _contraction.vectorize_copy(schedule, schedule.get_loops(pack)[-1])
            else:
                _contraction.spread(schedule, pack)
        return _dot_products.implement(schedule)
