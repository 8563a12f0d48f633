"""Attention as one kernel: scores, softmax and values of a block of rows, one after the other."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from hybridc.compiler.interfaces import (
    Match,
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.kernels.attention.attention import CAUSAL, EXTENTS, SHARED
from hybridc.compiler.target import Target
from hybridc.schedules.products import (
    accumulators,
    causal,
    contraction,
    dot_products,
    packing,
    point_figures,
    registers,
    tiling,
)
from hybridc.schedules.products.problem import Problem

# The axis of packed values that pairs have, behind their lanes.
_BEHIND_LANES = 5
# What is computed ahead of the blocks of rows.
_APART = ("pad", "queries", "pack", "pack_values")
_NARROW = "bfloat16"
_DOT_STAGES = ("dots", "dots_few")
_ROW_STAGES = (
    "total",
    "total_few",
    "total_lanes",
    "weights",
    "largest",
    "largest_few",
    "largest_lanes",
)
# Few rows keep their scores in the nearest cache: 10 and more were slower.  Up to 8 are alike, so
# that whole blocks count: 49 rows take 3 % longer by 8 than by 7 (Zen 4).
_ROWS = (1, 2, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class AttentionMatch(Match):
    """An attention kernel: heads times batch, rows, columns, depth of the scores, features.

    `padded` is the columns in whole vectors.
    `shared` query heads read one head of keys; `packed` tells whether the keys are packed, and
    `packs_values` whether the values are, in vectors of `width` lanes either way.  `group` features
    fill a lane.  The first row meets `first` columns and each other one
    more, where the attention is causal; else `first` is 0.
    """

    heads: int
    shared: int
    packed: bool
    rows: int
    padded: int
    columns: int
    depth: int
    features: int
    lanes: int
    width: int
    group: int
    packs_values: bool
    first: int

    @property
    def narrow(self) -> bool:
        """Whether products are of pairs of narrow numbers."""
        return self.group > 1

    @property
    def operands(self) -> tuple[packing.Operand, ...]:
        """What is packed beside the product: keys, and values that do not fill vectors."""
        if not self.packed:
            return ()
        keys = packing.Operand("pack", self.depth, self.columns, self.group)
        values = packing.Operand("pack_values", self.columns, self.features, self.group)
        return (keys, values) if self.packs_values else (keys,)


@dataclass(frozen=True)
class Attention(ScheduleRule):
    """Schedule one head's block of rows at a time, its scores in the cache."""

    priority: ClassVar[int] = 85

    def match(self, func: PrimFunc, target: Target) -> AttentionMatch | NotApplicable:
        """Take kernels that `fuse-attention` made."""
        schedule = contraction.new_schedule(func)
        names = {str(schedule.get(b).name_hint) for b in contraction.all_blocks(schedule)}
        if not {"scores", "values", "logits", *_ROW_STAGES} <= names:
            return NotApplicable("it holds no attention")
        scores = schedule.get_sblock("scores")
        batch, heads, rows, padded, _ = contraction.extents(schedule, scores)
        notes = schedule.get(scores).annotations
        columns, depth, features = (int(extent) for extent in notes[EXTENTS])
        width, group = math.gcd(features, target.lanes()), 1
        if "pack_values" in names:
            packed = schedule.get(schedule.get_sblock("pack_values")).writes[0].source
            width, group = target.lanes(), math.prod(map(int, packed.shape[_BEHIND_LANES:]))
        return AttentionMatch(
            func=func,
            target=target,
            heads=batch * heads,
            shared=int(notes[SHARED]),
            packed="dots" not in names,
            rows=rows,
            padded=padded,
            columns=columns,
            depth=depth,
            features=features,
            lanes=target.lanes(),
            width=width,
            group=group,
            packs_values="pack_values" in names,
            first=int(notes.get(CAUSAL, 0)),
        )

    def knobs(self, match: AttentionMatch) -> Space:
        """Rows of a block, vectors of a register tile; blocks of rows and heads in a task."""
        fitting = [t for t in registers.tiles(match.target) if t[0] <= match.rows]
        blocks = {d for rows, _ in fitting for d in tiling.divisors(-(-match.rows // rows))}
        return {
            "rows": tuple(sorted({rows for rows, _ in fitting})),
            "vectors": tuple(sorted({vectors for _, vectors in fitting})),
            "chunk": tuple(sorted(blocks)),
            "heads": tuple(tiling.divisors(match.shared)),
        }

    def default(self, match: AttentionMatch, target: Target) -> Point:
        """The analytic model's tile for the values; whole heads where that balances the threads."""
        problem = self._values(match)
        rows, vectors = tiling.choose_tile(problem, target, _ROWS)
        if match.features % match.width:
            vectors = problem.panels(1)
            fitting = [n for n, count in registers.tiles(target) if n in _ROWS and count >= vectors]
            rows = max((n for n in fitting if n <= match.rows), default=1)
        blocks = -(-match.rows // rows)
        balanced = [
            (heads * chunk, heads, chunk)
            for heads in tiling.divisors(match.shared)
            for chunk in tiling.divisors(blocks)
            if heads == 1 or chunk == blocks
            if (match.heads * blocks // (heads * chunk)) % target.threads == 0
        ]
        _, heads, chunk = max(balanced or [(1, 1, 1)])
        return {"rows": rows, "vectors": vectors, "chunk": chunk, "heads": heads}

    def figures(self, match: AttentionMatch, point: Point) -> Mapping[str, float]:
        """Those of the product of weights and values, as if it were alone."""
        taken = self.canonical(match, point)
        problem = replace(self._values(match), image_bytes=match.rows * match.features * 4)
        whole = {**taken, "panels": problem.panels(taken["vectors"])}
        return point_figures.tiled(problem, whole, match.target)

    def schedule(self, match: AttentionMatch, point: Point) -> Schedule:
        """Hang every stage on the loop over blocks of rows."""
        schedule = contraction.new_schedule(match.func)
        for operand in match.operands:
            packing.flatten(schedule, operand)
        product = schedule.get_sblock("values")
        keep = (*_APART, *_DOT_STAGES, "scores", "logits", *_ROW_STAGES)
        store = contraction.inline_epilogue(schedule, product, keep)
        rows = min(point["rows"], match.rows)
        batch, row, head, feature = schedule.get_loops(store)
        block, row = schedule.split(row, [None, rows])
        blocks = -(-match.rows // rows)
        chunk = tiling.divisor_below(blocks, point["chunk"])
        part_of_head, block = schedule.split(block, [None, chunk])
        lanes = match.width
        panel, part, lane = self._columns(schedule, feature, lanes, point["vectors"])
        heads = tiling.divisor_below(match.shared, point["heads"])
        head, sibling = schedule.split(head, [None, heads])
        schedule.reorder(batch, head, part_of_head, sibling, block, panel, row, part, lane)
        task = schedule.fuse(batch, head, part_of_head)
        schedule.parallel(task)
        for ragged in (panel, block) if match.features % lanes else (block,):
            schedule.annotate(ragged, "pragma_loop_partition_hint", 1)
        along = self._accumulate(schedule, product, panel, match, lanes)
        causal.mark(schedule, along, match.group)
        contraction.straighten(schedule, lane, part, row)
        for name in _ROW_STAGES:
            self._row_stage(schedule, name, block, match.lanes)
        if match.packed:
            self._scores(schedule, block, match, point["vectors"])
        else:
            self._dots(schedule, block, match.lanes)
        self._prepare(schedule, task if chunk == blocks and heads == match.shared else None, match)
        if match.first:
            schedule = causal.limit(schedule, store, row, match.first)
        return packing.implement(dot_products.implement(schedule), *match.operands)

    def canonical(self, match: AttentionMatch, point: Point) -> Point:
        """Rows that the kernel has, whole parts of its blocks and vectors, heads that divide."""
        rows = min(point["rows"], match.rows)

        def parts(vectors: int) -> list[int]:
            counts = [(match.features, match.width), (match.padded, match.lanes)]
            taken = counts[: 1 + match.packed]
            whole = [n // lanes for n, lanes in taken if n % lanes == 0]
            return [tiling.divisor_below(count, vectors) for count in whole]

        wanted = parts(point["vectors"])
        return {
            "rows": rows,
            "vectors": min(v for v in self.knobs(match)["vectors"] if parts(v) == wanted),
            "chunk": tiling.divisor_below(-(-match.rows // rows), point["chunk"]),
            "heads": tiling.divisor_below(match.shared, point["heads"]),
        }

    def _values(self, match: AttentionMatch) -> Problem:
        """The product of weights and values."""
        depth = -(-match.columns // match.group)
        lanes = match.width
        return Problem(match.heads, 1, match.rows, match.features, depth, 4, 0, lanes)

    def _columns(self, schedule: Schedule, loop: Any, lanes: int, vectors: int) -> Any:
        """Cut columns into panels, the vectors of a panel, and lanes.

        Vectors of pairs are whole ones always; those that end behind the columns share one panel,
        as TVM sees no stages in panels that read different numbers of columns.
        """
        extent = int(schedule.get(loop).extent)
        group, lane = schedule.split(loop, [None, lanes])
        count = int(schedule.get(group).extent)
        width = count if extent % lanes else tiling.divisor_below(count, vectors)
        panel, part = schedule.split(group, [None, width])
        return panel, part, lane

    def _accumulate(
        self, schedule: Schedule, product: Any, at: Any, match: AttentionMatch, lanes: int
    ) -> Any:
        instruction = None
        if match.narrow:
            instruction = dot_products.instruction_for(_NARROW, _NARROW, match.target)
        return accumulators.accumulate_at(schedule, product, at, lanes, instruction)

    def _row_stage(self, schedule: Schedule, name: str, block: Any, lanes: int) -> None:
        stage = schedule.get_sblock(name)
        schedule.compute_at(stage, block, preserve_unit_loops=True)
        loops = schedule.get_loops(stage)
        if name == "weights":
            vectors, lane = schedule.split(loops[-1], [None, lanes])
            schedule.vectorize(lane)
            causal.mark(schedule, vectors, lanes)
            return
        *_, last, reduction = loops
        if name in ("total", "largest"):
            schedule.decompose_reduction(stage, reduction)
            schedule.unroll(reduction)
            return
        schedule.reorder(reduction, last)
        schedule.vectorize(last)
        schedule.decompose_reduction(stage, reduction)
        if name.endswith("_lanes"):
            causal.mark(schedule, reduction, lanes)

    def _scores(self, schedule: Schedule, block: Any, match: AttentionMatch, vectors: int) -> None:
        logits, scores = schedule.get_sblock("logits"), schedule.get_sblock("scores")
        schedule.compute_at(logits, block, preserve_unit_loops=True)
        *_, row, column = schedule.get_loops(logits)
        panel, part, lane = self._columns(schedule, column, match.lanes, vectors)
        schedule.reorder(panel, row, part, lane)
        self._accumulate(schedule, scores, panel, match, match.lanes)
        causal.mark(schedule, panel, int(schedule.get(part).extent) * match.lanes)
        contraction.straighten(schedule, lane, part, row)

    def _dots(self, schedule: Schedule, block: Any, lanes: int) -> None:
        logits = schedule.get_sblock("logits")
        schedule.compute_at(logits, block, preserve_unit_loops=True)
        group, lane = schedule.split(schedule.get_loops(logits)[-1], [None, lanes])
        schedule.vectorize(lane)
        causal.mark(schedule, group, lanes)
        for name in ("scores", *_DOT_STAGES[::-1]):
            stage = schedule.get_sblock(name)
            schedule.compute_at(stage, group, preserve_unit_loops=True)
            *_, last, reduction = schedule.get_loops(stage)
            if name != "scores":
                schedule.reorder(reduction, last)
                schedule.vectorize(last)
            schedule.unroll(reduction)
            schedule.decompose_reduction(stage, reduction)

    def _prepare(self, schedule: Schedule, task: Any | None, match: AttentionMatch) -> None:
        """Pack a head's keys in its own task where it has one; else, and the mask, beforehand."""
        for operand in match.operands:
            packing.prepare(schedule, operand, task)
        for stage in contraction.all_blocks(schedule):
            if str(schedule.get(stage).name_hint) in ("pad", "queries"):
                contraction.spread(schedule, stage)
