"""Rows of few numbers: as many rows side by side as a vector has lanes, turned in registers."""

from dataclasses import dataclass
from math import prod
from typing import ClassVar

from hybridc.compiler import strips
from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import Target
from hybridc.schedules.loops import analysis, transforms
from hybridc.schedules.rows import row_stages, short, short_loops, softmax_form
from hybridc.schedules.rows.short import Turned

# Vectors of a row, from which on its lanes are filled well by the row itself: to turn a vector
# takes three shuffles with eight lanes, and as many to turn it back.
_SHORT = 2


@dataclass(frozen=True)
class ShortRows(ScheduleRule):
    """Reductions and softmax of rows that fill few vectors: a lane for each row."""

    priority: ClassVar[int] = 36

    def match(self, func: PrimFunc, target: Target) -> Turned | NotApplicable:
        """Take kernels of row stages whose rows are short, contiguous and many."""
        if strips.has_gaps(func):
            return NotApplicable("its rows do not follow each other")
        rows = row_stages.analyse(func, target)
        if isinstance(rows, NotApplicable):
            return rows
        if not rows.along or rows.apart:
            return NotApplicable("its rows lie side by side, or something is computed beforehand")
        turned = _turned(rows, target)
        if turned is None or not turned.is_written:
            return NotApplicable("lanes cannot stand for its rows, or are no better")
        return turned

    def knobs(self, match: Turned) -> Space:
        """`threads` over groups of rows, or one thread."""
        return {"threads": (0, 1)}

    def default(self, match: Turned, target: Target) -> Point:
        """Threads where the work outweighs waking them."""
        return {"threads": int(match.threads)}

    def schedule(self, match: Turned, point: Point) -> Schedule:
        """A loop over groups of rows: turned, computed, turned back."""
        body = short_loops.Writer(match).body(bool(point["threads"]))
        done = transforms.with_own_names(match.func.with_body(body))
        return transforms.new_schedule(softmax_form.forget_nan(done) if match.forgets else done)


def _turned(rows: row_stages.Rows, target: Target) -> Turned | None:
    """The kernel as stages of short rows; None if rows are long, few, or of whole vectors."""
    found = {block.name: block for block in analysis.blocks(rows.staged)}
    last = found[rows.output]
    axes = list(last.spatial.values())
    extents = [axes[position] for position in rows.kept if axes[position] > 1]
    lengths = {prod(block.reduction.values()) for block in found.values() if block.reduction}
    length, count, lanes = max(lengths), prod(extents), target.lanes()
    if len(lengths) != 1 or not 1 < length < _SHORT * lanes or count < lanes:
        return None
    stages = [short.Stage.of(found[name], extents, length) for name in (*rows.stages, last.name)]
    known = tuple(stage for stage in stages if stage is not None)
    forgets = softmax_form.is_softmax(rows.staged)
    turned = Turned(rows.func, target, known, count, length, rows.threads, forgets)
    # Rows of whole vectors are well off with sums of their own.
    whole = length % lanes == 0 and turned.is_norm
    return None if whole or len(known) < len(stages) else turned
