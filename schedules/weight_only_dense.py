"""Matrix products with weights of 8 or 4 bits, made float32 in registers or panel by panel."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    Space,
)
from hybridc.compiler.kernels.products.weight_only import KIND, UNPACK
from hybridc.compiler.target import Target
from hybridc.schedules.products import contraction, registers, tiling
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.problem import Problem
from hybridc.schedules.products.tiled import Tiled

# Cycles to unpack a vector beside its multiply-adds, and to do so into the cache: a widening load,
# a conversion, a product, a store.  Measured on Zen 3: 0.8 and 1.3 in 8 bits, 1.3 and 1.5 in 4.
_UNPACK, _UNPACK_AND_STORE = 1.0, 1.4
# Inputs that are unpacked side by side, where a loop has no other vectors to offer.
_UNROLL = 4


@dataclass(frozen=True)
class WeightOnly(Contraction):
    """A product with packed integers: panels of `width` columns, groups of `size` inputs.

    An element of the packed weights holds `share` integers.
    """

    width: int
    size: int
    share: int


@dataclass(frozen=True)
class WeightOnlyDense(Tiled):
    """Schedule products with weights of 8 or 4 bits, which are unpacked within the kernel.

    Where rows are few, each register tile unpacks the weights that it multiplies (`cached=0`), and
    only bytes come from memory.  Where they are many, a task unpacks a panel of weights once
    (`cached=1`), and its tiles of rows read float32 from the cache.
    """

    priority: ClassVar[int] = 84

    def match(self, func: PrimFunc, target: Target) -> WeightOnly | NotApplicable:
        """Take kernels that `quantize-weights` made."""
        found = contraction.find_product(func, KIND)
        if isinstance(found, NotApplicable):
            return found
        schedule, product = found
        rows, _, depth = contraction.extents(schedule, product)
        columns = contraction.extents(schedule, schedule.get_consumers(product)[0])[-1]
        integers, scales = (
            [int(extent) for extent in read.source.shape]
            for read in schedule.get(_unpacking(schedule, product)).reads[:2]
        )
        problem = Problem(1, 1, rows, columns, depth, depth * 4, rows * depth * 4, target.lanes())
        share = depth // integers[1]
        return WeightOnly(func, target, problem, scales[2], depth // scales[1], share)

    def knobs(self, match: WeightOnly) -> Space:
        """Those of every tiled kernel, and whether a panel of weights is unpacked once."""
        space = dict(tiling.space(match.problem, match.target))
        space["vectors"] = tuple(v for v in space["vectors"] if _fits_panels(match, v)) or (1,)
        return {**space, "cached": (0, 1)}

    def default(self, match: WeightOnly, target: Target) -> Point:
        """Rows of one tile in registers; more, which would unpack again, from a panel in the cache.

        With 16 rows in three tiles, a panel took 0.8 to 0.9 of the time (Zen 3).
        """
        problem = match.problem
        vectors = match.width // problem.lanes
        if problem.rows <= max(rows for rows, v in registers.tiles(target) if v == vectors):
            return {"rows": problem.rows, "vectors": vectors, "chunk": 1, "panels": 1, "cached": 0}
        return min(self._panels(match), key=lambda point: self.estimate(match, point))

    def _panels(self, match: WeightOnly) -> Iterator[Point]:
        """The points that unpack panels."""
        problem, target = match.problem, match.target
        for rows, vectors in tiling.fitting_tiles(problem, target):
            if not _fits_panels(match, vectors):
                continue
            for chunk, panels in tiling.possible_tasks(problem, (rows, vectors), target):
                tile = {"rows": rows, "vectors": vectors, "chunk": chunk, "panels": panels}
                yield {**tile, "cached": 1}

    def schedule(self, match: WeightOnly, point: Point) -> Schedule:
        """Tile, with the depth cut into the groups that share a scale."""
        schedule, product, store = contraction.opened(match)
        unpack = _unpacking(schedule, product)
        dequantised = contraction.name(schedule, unpack)
        feeding = schedule.get_producers(product)
        pads = [b for b in feeding if contraction.name(schedule, b) != dequantised]
        if not point["cached"]:
            schedule.compute_inline(unpack)
        contraction.tile(match, schedule, product, store, point)
        _, panel, *_ = schedule.get_loops(product)
        if point["cached"]:
            schedule.compute_at(unpack, panel, preserve_unit_loops=True)
            *_, depth, lane = schedule.get_loops(unpack)
            vector, lane = contraction.split_lanes(schedule, lane, match.problem.lanes)
            _, element = _in_groups(schedule, depth, match)
            schedule.reorder(element, vector, lane)
            schedule.vectorize(lane)
            schedule.unroll(vector)
        else:
            *_, depth, _, _, _ = schedule.get_loops(product)
            _in_groups(schedule, depth, match)
        for pad in pads:
            contraction.spread(schedule, pad)
        return schedule

    def canonical(self, match: WeightOnly, point: Point) -> Point:
        """A tile no larger than the kernel; tasks of whole parts of it."""
        return {**tiling.canonical(match.problem, point), "cached": point["cached"]}

    def estimate(self, match: WeightOnly, point: Point) -> float:
        """The analytic model's cycles, those of unpacking with them."""
        canonical, problem, target = self.canonical(match, point), match.problem, match.target
        # Bytes of a weight, with its part of a scale.
        held = (0.5 if match.share > 1 else 1.0) + 2.0 / match.size
        if not point["cached"]:
            bytes_ = replace(problem, weight_bytes=held, unpacking=_UNPACK)
            return tiling.estimate(bytes_, canonical, target)
        units, panels = problem.units(canonical["rows"]), problem.panels(canonical["vectors"])
        tasks = units // canonical["chunk"] * (panels // canonical["panels"])
        vectors = canonical["panels"] * canonical["vectors"]
        steps = -(-tasks // target.threads) * vectors * problem.depth
        unpacking = steps * _UNPACK_AND_STORE
        # What a thread gets from memory are packed bytes; float32 it reads from its cache.
        fresh = min(steps, panels * canonical["vectors"] * problem.depth) * problem.lanes
        spared = fresh * (problem.weight_bytes - held)
        cycles = tiling.estimate(problem, canonical, target) + unpacking
        return cycles - spared / target.machine.dram_bytes_per_cycle


def _unpacking(schedule: Schedule, product: Any) -> Any:
    """The block that makes float32 of integers."""
    producers = schedule.get_producers(product)
    return next(b for b in producers if contraction.name(schedule, b).startswith(UNPACK))


def _in_groups(schedule: Schedule, depth: Any, match: WeightOnly) -> tuple[Any, Any]:
    """Cut a loop over the depth so that scales are read once a group, and bytes once."""
    group, step = schedule.split(depth, [None, match.size])
    width = match.share if match.share > 1 else tiling.divisor_below(match.size, _UNROLL)
    _, element = schedule.split(step, [None, width])
    schedule.unroll(element)
    return group, element


def _fits_panels(match: WeightOnly, vectors: int) -> bool:
    """Whether a tile's columns are a panel, whole panels, or a whole part of one."""
    columns = vectors * match.problem.lanes
    return columns % match.width == 0 or match.width % columns == 0
