"""Matrix products with weights of 8 or 4 bits and activations of bytes, added up in registers."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.interfaces import NotApplicable, Point, PrimFunc, Schedule, Space
from hybridc.compiler.kernels.products.grouped_bytes import KIND, PARTIAL, ROUNDED, STRIDED, TOTALS
from hybridc.compiler.target import Target
from hybridc.schedules.products import contraction, dot_products, groups, tiling
from hybridc.schedules.products.contraction import Contraction
from hybridc.schedules.products.dot_products import Instruction
from hybridc.schedules.products.groups import PAD
from hybridc.schedules.products.problem import Problem
from hybridc.schedules.products.tiled import Tiled

# Of a vector of a group's sums: a conversion, and two multiply-adds by steps and scales.
_JOINED = 3
# Of a vector of words: what takes them apart into bytes.
_APART = 3
# Sums that products of bytes keep busy: two start a cycle, and take five.
_IN_FLIGHT = 10
# Bytes of an activation.
_BYTE = 1


@dataclass(frozen=True)
class Bytes(Contraction):
    """A product of bytes: panels of `width` columns, groups of `size` inputs, `share` of a word."""

    width: int
    size: int
    instruction: Instruction


@dataclass(frozen=True)
class GroupedBytes(Tiled):
    """Schedule products of rounded activations with weights of 8 or 4 bits.

    A tile has sums of two kinds: integers of a group, which start at nothing for each group, and
    float32 of all groups, which they join by their scales.
    """

    priority: ClassVar[int] = 86

    def match(self, func: PrimFunc, target: Target) -> Bytes | NotApplicable:
        """Take kernels that `block-weights` made for activations which may be rounded."""
        found = groups.find(func, KIND, PARTIAL, (*STRIDED, *TOTALS))
        if isinstance(found, NotApplicable):
            return found
        instruction = dot_products.of_words(found.share, target)
        if instruction is None:
            return NotApplicable("the target has no instruction for products of bytes")
        row = found.depth * _BYTE
        problem = Problem(
            *(1, 1, found.rows, found.columns, found.depth, row, found.rows * row, target.lanes()),
            weight_bytes=4 / found.share + found.bytes_of_scale,
        )
        return Bytes(func, target, problem, found.width, found.size, instruction)

    def knobs(self, match: Bytes) -> Space:
        """Rows and vectors of the tile, which divide those that there are."""
        space, problem = tiling.space(match.problem, match.target), match.problem
        vectors = tuple(v for v in space["vectors"] if match.width % (v * problem.lanes) == 0)
        most = match.target.vector_registers
        rows = tuple(n for n in range(1, most) if problem.rows % n == 0)
        return {"rows": rows, "vectors": vectors or (1,), "chunk": (1,), "panels": space["panels"]}

    def default(self, match: Bytes, target: Target) -> Point:
        """The tile whose weights, taken apart, serve most rows, among those in registers."""
        space = self.knobs(match)
        fitting = [
            (rows, vectors)
            for rows in space["rows"]
            for vectors in space["vectors"]
            if _registers(rows, vectors) <= target.vector_registers
        ]
        rows, vectors = min(fitting, key=lambda tile: _cycles(match, *tile), default=(1, 1))
        return {"rows": rows, "vectors": vectors, "chunk": 1, "panels": 1}

    def schedule(self, match: Bytes, point: Point) -> Schedule:
        """Tile the product over its groups, and compute each group's sums within."""
        schedule = contraction.new_schedule(match.func)
        product = contraction.product_of(schedule)
        feeding = (ROUNDED, *STRIDED, *TOTALS, PAD)
        store = contraction.inline_epilogue(schedule, product, feeding)
        contraction.tile(match, schedule, product, store, point)
        _sums_of_groups(schedule, product, match)
        names = (PAD, ROUNDED, *STRIDED)
        groups.vectorize_feeding(schedule, names, STRIDED, match.problem.lanes)
        return dot_products.implement(schedule)


def _sums_of_groups(schedule: Schedule, product: Any, match: Bytes) -> None:
    """Words times activations of one group, in registers: depth outside, tile inside."""
    partial = contraction.named(schedule, PARTIAL)
    *_, group, _, _, _ = schedule.get_loops(product)
    schedule.compute_at(partial, group, preserve_unit_loops=True)
    *_, row, _, column, depth = schedule.get_loops(partial)
    part, lane = schedule.split(column, [None, match.problem.lanes])
    step, element = schedule.split(depth, [None, match.instruction.group])
    schedule.reorder(step, row, part, lane, element)
    for loop in (row, part):
        schedule.unroll(loop)
    init = schedule.decompose_reduction(partial, step)
    *_, first, second, start = schedule.get_loops(init)
    schedule.vectorize(start)
    schedule.unroll(first)
    schedule.unroll(second)
    schedule.unroll(step)
    dot_products.mark(schedule, schedule.blockize(lane), match.instruction)


def _registers(rows: int, vectors: int) -> int:
    """Sums of all and of a group, words taken apart, and what they are masked by."""
    return 2 * rows * vectors + 2 * vectors + 1


def _cycles(match: Bytes, rows: int, vectors: int) -> float:
    """Instructions of a group for each vector of results; fewer sums wait for each other."""
    steps = match.size // match.instruction.group
    products = steps * match.instruction.group // 4
    waiting = max(1.0, _IN_FLIGHT / (rows * vectors))
    return products * waiting + _JOINED + steps * _APART / rows
