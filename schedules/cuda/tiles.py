"""Which tiles a product may be cut into on a GPU, and which are best by analysis."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product as combinations
from math import prod

from hybridc.compiler.cuda.gpu import CLUSTERS, MOST_CLUSTERED, MOST_THREADS, WARP, Gpu
from hybridc.compiler.cuda.resources import occupancy
from hybridc.compiler.interfaces import Match, Point, Space
from hybridc.schedules.cuda import packed_tiles
from hybridc.schedules.cuda.compute import SCHEDULERS, Compute
from hybridc.schedules.cuda.operands import ROW_BYTES, Source, source
from hybridc.schedules.cuda.product_kernel import Product
from hybridc.schedules.cuda.tiling import Tiling

_SPLITS = (1, 2, 4, 8, 16)
# Tiles along the depth that a block has at least, where several divide it.
_LEAST_STEPS = 2
_MOST_PARTS = 2**31 - 1  # floats that blocks leave to be added up: what an index counts
_LEAST_THREADS = 64
_MOST_REGISTERS = 232
# Bytes that a multiprocessor gets in a cycle from its shared memory, and from the L2 cache, which
# all share: half of what the L2 of an A100 gives when all ask (5,120 bytes a cycle); an H100's gave
# 42 in a product of 4096 that had the tensor cores busy.
_SHARED_BYTES = 128
_L2_BYTES = 24
_L2_BYTES_HOPPER = 48
# Instructions of a warp for its loop, for each copy of up to 16 bytes, its condition, an element,
# or a piece of packed weights and each weight of it; cycles from one of these to the next, as they
# depend on each other: 510 for 90 of them in a step of 64x64 tiles on an H100.
_STEP_INSTRUCTIONS = 20
_COPY_INSTRUCTIONS = 4
_CONDITION_INSTRUCTIONS = 2
_ELEMENT_INSTRUCTIONS = 8
_PIECE_INSTRUCTIONS = 16
_WEIGHT_INSTRUCTIONS = {4: 3, 2: 2}  # of so many bytes
_PACE = 5
_CONTENTION = 0.08
# Cycles until the first tiles are there and the sums are written.
_LATENCY = 2_500
_LAUNCH = 3_000  # cycles that another launch takes, 1.6 µs
# Cycles in which the blocks of a cluster meet twice; bytes that a multiprocessor gets of the shared
# memory of others in a cycle.
_MEETINGS = 800
_CLUSTER_BYTES = 16
_BARRIER = 60


@dataclass(frozen=True)
class Cut(Match):
    """A product with what multiplies it; `rate` are its FLOP/s on the whole GPU."""

    product: Product
    compute: Compute
    rate: float

    @cached_property
    def sources(self) -> tuple[Source, Source]:
        """How the sides are copied."""
        product, by_depth = self.product, self.compute.by_depth
        return source(product.left, product, by_depth), source(product.right, product, by_depth)

    @property
    def gpu(self) -> Gpu:
        """The GPU that it is cut for."""
        return self.target.device


def space(cut: Cut) -> Space:
    """Sides of a block's tile and of a warp's; how many tiles are in shared memory at once."""
    sides = cut.compute.sides()
    stages = cut.compute.stages if "cp.async" in cut.gpu.features else cut.compute.stages[:1]
    return {
        "rows": sides.block,
        "columns": sides.block,
        "warp_rows": sides.warp_rows,
        "warp_columns": sides.warp_columns,
        "stages": stages,
        "splits": _SPLITS,
    }


def tiling(point: Point) -> Tiling:
    """The tiling of a canonical point."""
    return Tiling(
        point["rows"],
        point["columns"],
        point["warp_rows"],
        point["warp_columns"],
        point["stages"],
        point["splits"],
    )


def canonical(cut: Cut, point: Point) -> Point:
    """The same as far as the GPU allows: threads, registers and shared memory of a block."""
    left, right = cut.sources
    rows = max(point["rows"], _least(left))
    columns = max(point["columns"], _least(right))
    made = dict(point) | {
        "rows": rows,
        "columns": columns,
        "warp_rows": min(point["warp_rows"], rows),
        "warp_columns": min(point["warp_columns"], columns),
    }
    made = dict(cut.compute.shaped(made))
    while registers(cut, made) > _MOST_REGISTERS:
        side = "warp_rows" if made["warp_rows"] >= made["warp_columns"] else "warp_columns"
        made[side] //= 2
    while tiling(made).threads > MOST_THREADS or _crowded(cut, made):
        side = "rows" if made["rows"] >= made["columns"] else "columns"
        made[side] = max(length for length in cut.compute.sides().block if length < made[side])
        made[f"warp_{side}"] = min(made[f"warp_{side}"], made[side])
    while tiling(made).shared > cut.gpu.shared_per_block and made["stages"] > 2:
        made["stages"] -= 1
    steps, outputs = _steps(cut), prod(cut.product.sizes[:3])
    together = MOST_CLUSTERED if CLUSTERS in cut.gpu.features else _MOST_PARTS // outputs
    most = min(made["splits"], steps // _LEAST_STEPS, together)
    made["splits"] = max(n for n in _SPLITS if n == 1 or n <= most)
    return made


def _least(source: Source) -> int:
    """Rows or columns that a tile has at least: by depth, it has whole rows of 128 bytes."""
    return ROW_BYTES // source.size if source.by_depth else 0


def _steps(cut: Cut) -> int:
    """Tiles along the depth."""
    return -(-cut.product.sizes[3] // cut.sources[0].step)


def _crowded(cut: Cut, point: Point) -> bool:
    """Whether a block has more registers than a multiprocessor, or two stages no room."""
    cutting = tiling(point)
    least = Tiling(cutting.rows, cutting.columns, cutting.warp_rows, cutting.warp_columns, 2)
    taken = registers(cut, point) * cutting.threads
    return taken > cut.gpu.registers_per_sm or least.shared > cut.gpu.shared_per_block


def registers(cut: Cut, point: Point) -> int:
    """Registers of a thread, about."""
    sums, *operands = cut.compute.registers(point["warp_rows"], point["warp_columns"])
    sides = zip(cut.sources, (point["rows"], point["columns"]), strict=True)
    threads = tiling(point).threads
    held = sum(packed_tiles.registers(source, length, threads) for source, length in sides)
    # What is unpacked lies where operands did.
    beside = max(sum(operands), *map(packed_tiles.unpacking, cut.sources))
    return sums + beside + held + cut.compute.others()


def default(cut: Cut) -> Point:
    """The point of the least estimate; of equal ones the one with the smallest tiles."""
    return min(points(cut), key=lambda point: (estimate(cut, point), *point.values()))


def points(cut: Cut) -> Iterator[Point]:
    """The canonical points with enough threads to hide what each waits for."""
    choices = {knob: values for knob, values in space(cut).items() if knob != "splits"}
    seen: set[tuple[int, ...]] = set()
    for values in combinations(*choices.values()):
        point = canonical(cut, {**dict(zip(choices, values, strict=True)), "splits": 1})
        key = tuple(point.values())
        if key not in seen and tiling(point).threads >= _LEAST_THREADS:
            seen.add(key)
            yield point
            yield from _divided(cut, point)


def _divided(cut: Cut, point: Point) -> Iterator[Point]:
    """The same with the depth divided, as long as multiprocessors are left without a block."""
    blocks = prod(tiling(point).blocks(cut.product))
    for splits in _SPLITS[1:]:
        made = canonical(cut, {**point, "splits": splits})
        if made["splits"] != splits or blocks * splits > cut.compute.most_waves * cut.gpu.sms:
            return
        yield made


def estimate(cut: Cut, point: Point) -> float:
    """Cycles of one call: waves of blocks, each as slow as its slowest supply."""
    cutting, gpu = tiling(canonical(cut, point)), cut.gpu
    batch, rows, columns, depth = cut.product.sizes
    size = cut.sources[0].size
    steps = -(-_steps(cut) // cutting.splits)
    used = occupancy(cutting.threads, registers(cut, point), cutting.shared, gpu)
    room = max(1, round(used * gpu.threads_per_sm / cutting.threads))
    down, across, _ = cutting.blocks(cut.product)
    blocks = down * across * batch * cutting.splits
    waves, resident = -(-blocks // (gpu.sms * room)), min(room, -(-blocks // gpu.sms))
    step = _step(cut, cutting, resident, size)
    store = cutting.rows * cutting.columns * 4 * resident / _l2_bytes(gpu)
    moved = batch * (rows * depth + columns * depth + rows * columns) * size
    apart = 0.0
    if cutting.together(cut.product) > 1:
        apart = _MEETINGS + cutting.rows * cutting.columns * 4 * resident / _CLUSTER_BYTES
    elif cutting.splits > 1:
        parts = 2 * cutting.splits * batch * rows * columns * 4
        apart = _LAUNCH + parts / gpu.sms / _l2_bytes(gpu)
    least = moved / gpu.bandwidth * gpu.clock
    return max(waves * (steps * step + store + _LATENCY) + apart, least)


def _l2_bytes(gpu: Gpu) -> int:
    return _L2_BYTES_HOPPER if CLUSTERS in gpu.features else _L2_BYTES


def _step(cut: Cut, cutting: Tiling, resident: int, size: int) -> float:
    """Cycles in which the blocks of a multiprocessor multiply a pair of tiles each."""
    gpu = cut.gpu
    area = resident * cutting.rows * cutting.columns
    of_all = cut.rate / gpu.clock / gpu.sms / 2  # multiply-adds of a multiprocessor in a cycle
    warps = cutting.threads // WARP * resident
    fetched = (cutting.rows + cutting.columns) * ROW_BYTES / _l2_bytes(gpu)
    reads = cut.compute.reads(cutting.warp_rows, cutting.warp_columns)
    supplies = (
        area * ROW_BYTES / size / of_all * cut.compute.idle(warps),
        reads * area * ROW_BYTES / _SHARED_BYTES,
        resident * fetched,
        _issue(cut, cutting, resident),
    )
    # What is not the bottleneck is in its way all the same; and at each barrier, a block alone
    # waits, while other blocks, stages ahead or products that are under way fill the gap.
    slowest = max(supplies)
    behind = cut.compute.behind(cutting.stages)
    barrier = 0 if behind else _BARRIER
    exposed = (barrier + fetched / (cutting.stages - behind)) / resident
    return slowest + _CONTENTION * (sum(supplies) - slowest) + exposed


def _issue(cut: Cut, cutting: Tiling, resident: int) -> float:
    """Cycles in which instructions of a step are issued: of all warps, or of one in its order."""
    own = cut.compute.instructions(cutting.warp_rows, cutting.warp_columns)
    sides = zip(cut.sources, (cutting.rows, cutting.columns), strict=True)
    copies = sum(length * source.copies * _copying(source) for source, length in sides)
    beside = _STEP_INSTRUCTIONS + copies / cutting.threads
    warps = cutting.threads // WARP * resident
    return max(warps * (own + beside) / SCHEDULERS, own + beside * _PACE)


def _copying(source: Source) -> int:
    """Instructions for a copy."""
    if source.weights is not None:
        unpacked = source.weights.deep * source.weights.wide
        return _PIECE_INSTRUCTIONS + _WEIGHT_INSTRUCTIONS[source.size] * unpacked
    if source.how == "elements":
        return _ELEMENT_INSTRUCTIONS
    return _COPY_INSTRUCTIONS + (0 if source.condition is None else _CONDITION_INSTRUCTIONS)
