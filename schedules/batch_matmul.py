"""Products of two activations, such as attention's scores and values."""

from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule
from hybridc.compiler.target import Target
from hybridc.schedules.products import accumulators, contraction, dot_products, operands, packing
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.problem import Problem
from hybridc.schedules.products.tiled import Tiled

_PACK = "pack"


@dataclass(frozen=True)
class BatchMatmul(Tiled):
    """Schedule `a[..., m, k] * b[..., k, n]`: pack b, then register tiles as for weights."""

    priority: ClassVar[int] = 60

    def match(self, func: PrimFunc, target: Target) -> Contraction | NotApplicable:
        """Take kernels that `legalize` made from a product of two activations."""
        found = contraction.find_product(func, "batch-matmul")
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        *batch, rows, _, _ = contraction.extents(schedule, product)
        store = schedule.get_consumers(product)[0]
        columns = contraction.extents(schedule, store)[-1]
        depth = operands.steps(schedule, product)
        size = depth * 4
        problem = Problem(
            *(prod(batch), 1, rows, columns, depth, size, rows * size, target.lanes()),
            **accumulators.costs(schedule, product, target),
            packs=_PACK in [contraction.name(schedule, b) for b in schedule.get_producers(product)],
            narrow=bool(_words(schedule, product)),
        )
        return Contraction(func, target, problem)

    def schedule(self, match: Contraction, point: Point) -> Schedule:
        """Tile, and pack inside each task where a task is one whole product."""
        schedule, product, store = contraction.opened(match)
        feeding = schedule.get_producers(product)
        words = _words(schedule, product)
        for operand in words:
            packing.flatten(schedule, operand)
        tiles = contraction.tile(match, schedule, product, store, point)
        for pack in feeding:
            if words and contraction.name(schedule, pack) == _PACK:
                whole = tiles.whole_image and tiles.all_columns
                packing.prepare(schedule, words[0], tiles.task if whole else None)
            elif tiles.whole_image and tiles.all_columns:
                schedule.compute_at(pack, tiles.task)
                contraction.vectorize_copy(schedule, schedule.get_loops(pack)[-1])
            else:
                contraction.spread(schedule, pack)
        return packing.implement(dot_products.implement(schedule), *words)


def _words(schedule: Schedule, product: Any) -> tuple[packing.Operand, ...]:
    """The operand that is packed by pairs of 16-bit integers, where it is."""
    packed = schedule.get(product).reads[1].source
    if str(packed.dtype) != "int16":
        return ()
    pack = contraction.named(schedule, _PACK)
    depth, columns = (int(size) for size in schedule.get(pack).reads[0].source.shape[-2:])
    return (packing.Operand(_PACK, depth, columns, int(packed.shape[-1])),)
