"""Products of two activations, such as attention's scores and values."""

from dataclasses import dataclass, replace
from math import prod
from typing import Any, ClassVar

from tvm.ir.expr import TensorLoad

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule, Space
from hybridc.compiler.target import Target
from hybridc.schedules.loops import access
from hybridc.schedules.products import (
    accumulators,
    cache_sets,
    contraction,
    dot_products,
    operands,
    packing,
    tiling,
)
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.problem import Problem
from hybridc.schedules.products.tiled import Tiled

_PACK = "pack"
# Cycles of a vector that is packed: it comes from the L2 cache or beyond, and nothing is multiplied
# meanwhile.
_PACKED = 6.0


@dataclass(frozen=True)
class Product(Contraction):
    """A product of activations, of which the second may be read as it lies.

    Then its rows are `gap` bytes apart; else that is 0.
    """

    gap: int

    def of(self, point: Point) -> Problem:
        """What the model sees of a point."""
        return self.problem if point.get(_PACK, 1) else replace(self.problem, packs=False)


@dataclass(frozen=True)
class BatchMatmul(Tiled):
    """Schedule `a[..., m, k] * b[..., k, n]`: register tiles, of b as it lies or packed before."""

    priority: ClassVar[int] = 60

    def match(self, func: PrimFunc, target: Target) -> Product | NotApplicable:
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
        pack = _pack(schedule, product)
        problem = Problem(
            *(prod(batch), 1, rows, columns, depth, size, rows * size, target.lanes()),
            **accumulators.costs(schedule, product, target),
            packs=pack is not None,
            narrow=bool(_words(schedule, product)),
        )
        return Product(func, target, problem, 0 if pack is None else _gap(schedule, pack))

    def knobs(self, match: Product) -> Space:
        """Those of a tile and its tasks; whether to `pack` what could be read as it lies."""
        space = tiling.space(match.problem, match.target)
        return {**space, _PACK: (0, 1)} if match.gap else space

    def default(self, match: Product, target: Target) -> Point:
        """The analytic model's choice."""
        packed = tiling.default(match.problem, target)
        if not match.gap:
            return packed
        points = [{**packed, _PACK: 1}]
        if cache_sets.stay(match.gap, match.problem.depth, target):
            unpacked = replace(match.problem, packs=False)
            points.append({**tiling.default(unpacked, target), _PACK: 0})
        return min(points, key=lambda point: self._cycles(match, point, target))

    def schedule(self, match: Product, point: Point) -> Schedule:
        """Tile, and pack inside each task where a task is one whole product."""
        schedule, product, store = contraction.opened(match)
        if match.gap and not point[_PACK]:
            schedule.compute_inline(_pack(schedule, product))
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

    def canonical(self, match: Product, point: Point) -> Point:
        """A tile no larger than the kernel; tasks of whole parts of it."""
        tile = tiling.canonical(match.problem, point)
        return {**tile, _PACK: point.get(_PACK, 1)} if match.gap else tile

    def estimate(self, match: Product, point: Point) -> float:
        """The analytic model's cycles."""
        return self._cycles(match, self.canonical(match, point), match.target)

    def _cycles(self, match: Product, point: Point, target: Target) -> float:
        problem = match.of(point)
        cycles = tiling.estimate(problem, point, target)
        if not (match.gap and problem.packs):
            return cycles
        packed = problem.images * problem.depth * problem.panels(1) * _PACKED
        return cycles + packed / target.threads


def _pack(schedule: Schedule, product: Any) -> Any | None:
    """The block that packs the second operand; None if constant matrices were packed before."""
    feeding = schedule.get_producers(product)
    return next((b for b in feeding if contraction.name(schedule, b) == _PACK), None)


def _gap(schedule: Schedule, pack: Any) -> int:
    """Bytes from one row to the next of a matrix that is read as it lies; 0 if it must be packed.

    Its columns are whole vectors of float32, which lie side by side, each in one line of a cache.
    """
    block = schedule.get(pack)
    load, lanes = block.body.value, int(block.iter_vars[-1].dom.extent)
    plain = isinstance(load, TensorLoad) and str(load.ty.dtype) == "float32"
    if not plain or schedule.get_producers(pack):
        return 0
    vector, step, lane = (axis.var for axis in list(block.iter_vars)[-3:])
    apart = [access.stride(load.indices, load.source, axis) for axis in (vector, step, lane)]
    gap = 4 * (apart[1] or 0)
    return gap if apart[::2] == [lanes, 1] and gap % cache_sets.LINE == 0 else 0


def _words(schedule: Schedule, product: Any) -> tuple[packing.Operand, ...]:
    """The operand that is packed by pairs of 16-bit integers, where it is."""
    packed = schedule.get(product).reads[1].source
    if str(packed.dtype) != "int16":
        return ()
    pack = contraction.named(schedule, _PACK)
    depth, columns = (int(size) for size in schedule.get(pack).reads[0].source.shape[-2:])
    return (packing.Operand(_PACK, depth, columns, int(packed.shape[-1])),)
