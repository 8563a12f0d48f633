"""What the analysis of tiled kernels knows of a point, as figures that the cost model learns from.

Figures are ratios, and logarithms of ratios, so that kernels of all sizes are comparable.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd, log2

from hybridc.compiler.interfaces import Point
from hybridc.compiler.kernels.convolutions.winograd_work import Work
from hybridc.compiler.target import Target
from hybridc.schedules.products import cache_sets
from hybridc.schedules.products.problem import Problem
from hybridc.schedules.rows.row_stages import Rows

Figures = Mapping[str, float]

# Multiply-adds that have to be in flight: cycles until a result is there.
_LATENCY = 4
# Additions of a chain each, likewise, with two that start in a cycle.
_CHAINS = 8


@dataclass(frozen=True)
class Sizes:
    """How a kernel was cut: the tile, elements along each side, tasks, and bytes a task touches.

    `rows` x `columns` x `depth` are those of one product, `tile` its register tile in rows and
    vectors, `vector` the lanes of a stored vector.  A task reads `inputs` and `weights` bytes and
    writes `outputs`; `panel` are the bytes that each of its row tiles reads again.
    """

    rows: int
    columns: int
    depth: int
    tile: tuple[int, int]
    lanes: int
    vector: int
    tasks: int
    inputs: float
    weights: float
    outputs: float
    panel: float
    passes: float


def tiled(problem: Problem, point: Point, target: Target) -> Figures:
    """Figures of a canonical point of a kernel that `_contraction.tile` cuts."""
    rows, vectors = point["rows"], point["vectors"]
    units, panels = problem.units(rows), problem.panels(vectors)
    chunk, width = point["chunk"], point["panels"]
    part = chunk / units
    panel = problem.depth * vectors * problem.lanes * 4
    sizes = Sizes(
        rows=problem.rows,
        columns=problem.columns,
        depth=problem.depth,
        tile=(rows, vectors),
        lanes=problem.lanes,
        vector=problem.stored(vectors, width),
        tasks=problem.images * (units // chunk) * (panels // width),
        inputs=problem.image_bytes * part + problem.halo_bytes,
        weights=width * panel,
        outputs=problem.height * problem.rows * part * width * vectors * problem.lanes * 4,
        panel=panel,
        passes=problem.height * -(-problem.rows // rows) * part,
    )
    crowded = cache_sets.crowded_lines(problem.row_stride, rows, target)
    return {
        **of_sizes(sizes, target),
        "crowded lines": float(crowded),
        "every column": float(width == panels),
        "whole image": float(chunk == units),
    }


def winograd(work: Work, point: Point, target: Target) -> Figures:
    """Figures of a canonical point of a Winograd convolution; a task has all positions."""
    rows, vectors, tiles = point["rows"], point["vectors"], point["tiles"]
    width = point["panels"] * vectors
    groups, chunks = work.tiles // tiles, work.vectors // width
    sizes = Sizes(
        rows=tiles,
        columns=work.columns,
        depth=work.channels,
        tile=(rows, vectors),
        lanes=work.lanes,
        vector=gcd(work.columns, work.lanes),
        tasks=groups * (chunks if point["staged"] else 1),
        inputs=work.positions * tiles * work.channels * 4,
        weights=work.positions * work.channels * width * work.lanes * 4,
        outputs=work.positions * tiles * width * work.lanes * 4,
        panel=work.channels * vectors * work.lanes * 4,
        passes=tiles / rows,
    )
    return {
        **of_sizes(sizes, target),
        "every column": float(chunks == 1),
        "whole image": float(groups == 1),
    }


def of_sizes(sizes: Sizes, target: Target) -> Figures:
    """The figures that all tiled kernels have."""
    rows, vectors = sizes.tile
    accumulators = rows * vectors
    panels = -(-sizes.columns // (vectors * sizes.lanes))
    rounds = -(-sizes.tasks // target.threads)
    last = sizes.rows % rows / rows
    held = sizes.inputs + sizes.weights + sizes.outputs
    return {
        "registers": (accumulators + vectors + 1) / target.vector_registers,
        "in flight": min(1.0, accumulators / (_LATENCY * target.machine.fma_per_cycle)),
        "multiply-adds per load": accumulators / (rows + vectors),
        "last tile": last,
        "waste of rows": log2(-(-sizes.rows // rows) * rows / sizes.rows),
        "waste of columns": log2(panels * vectors * sizes.lanes / sizes.columns),
        "lanes stored": sizes.vector / sizes.lanes,
        "depth": log2(sizes.depth),
        "tasks per thread": log2(sizes.tasks / target.threads),
        "imbalance": log2(rounds * target.threads / sizes.tasks),
        "row tiles per panel": log2(sizes.passes),
        "panel over L1": log2(sizes.panel / target.l1),
        "panel over L2": log2(sizes.panel / target.l2),
        "rows over L1": log2(rows * sizes.depth * 4 / target.l1),
        "inputs over L2": log2(sizes.inputs / target.l2),
        "weights over L2": log2(sizes.weights / target.l2),
        "task over L2": log2(held / target.l2),
        "outputs over inputs": log2(sizes.outputs / (sizes.inputs + sizes.weights)),
        "task work": log2(sizes.outputs * sizes.depth),
    }


def rows(match: Rows, point: Point) -> Figures:
    """Figures of a kernel of row stages: what lies side by side, and how many tasks there are."""
    target, width = match.target, point["width"]
    tasks = match.tasks(1 if match.along else width)
    if not point["threads"]:
        tasks = 1
    rounds = -(-tasks // target.threads)
    side_by_side = -(-width // match.native)
    return {
        "registers": side_by_side / target.vector_registers,
        "in flight": min(1.0, side_by_side / _CHAINS),
        "lanes stored": width / (side_by_side * match.native),
        "waste of columns": log2(-(-match.axis // width) * width / match.axis),
        "row tiles per panel": log2(-(-match.axis // width)),
        "tasks per thread": log2(tasks / target.threads),
        "imbalance": log2(rounds * target.threads / tasks),
        "task work": log2(match.work / tasks),
        "along": float(match.along),
    }
