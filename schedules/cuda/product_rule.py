"""What the rules of products on a GPU share: all but the products that they take."""

from abc import ABC
from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules.cuda import gemm, tiles
from hybridc.schedules.cuda.product_kernel import Product
from hybridc.schedules.cuda.tiles import Cut
from hybridc.schedules.loops import transforms

# Rows or columns below which a product is bound by memory, and a reduction does as well.
_LEAST = 8


@dataclass(frozen=True)
class CudaProducts(ScheduleRule, ABC):
    """A rule whose points are those of `tiles`; its matches are a `Cut`."""

    device: ClassVar[str] = CUDA

    def knobs(self, match: Cut) -> Space:
        """Sides of a block's tile and of a warp's; `stages` of copies."""
        return tiles.space(match)

    def default(self, match: Cut, target: Target) -> Point:
        """The analytic model's choice."""
        return tiles.default(match)

    def canonical(self, match: Cut, point: Point) -> Point:
        """What a block has threads, registers and shared memory for."""
        return tiles.canonical(match, point)

    def estimate(self, match: Cut, point: Point) -> float:
        """The analytic model's cycles."""
        return tiles.estimate(match, self.canonical(match, point))

    def schedule(self, match: Cut, point: Point) -> Schedule:
        """Written out thread by thread."""
        tiling = tiles.tiling(self.canonical(match, point))
        return transforms.new_schedule(gemm.kernel(match.product, tiling, match.compute))


def too_thin(product: Product) -> NotApplicable | None:
    """Why tiles do not pay for this product; None where they do."""
    _, rows, columns, _ = product.sizes
    if min(rows, columns) < _LEAST:
        return NotApplicable(f"{rows} rows and {columns} columns leave most of a tile unused")
    return None
