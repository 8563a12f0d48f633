"""Rows side by side where the kept axis is no whole number of vectors."""

from dataclasses import replace

from hybridc.schedules.loops import merged_axes
from hybridc.schedules.rows import row_stages
from hybridc.schedules.rows.row_stages import Rows

# Up to as many vectors of accumulators are in registers; more are in the cache.
_REGISTERS = 8
# What a vector of accumulators in the first level of the cache, or beyond it, takes beside one in
# a register: 961 sums of 200 take 56 us so, and 75 us by 31 in registers (Emerald Rapids).
_CACHED, _BEYOND = 1.5, 3.0


def with_fewer_axes(rows: Rows) -> Rows:
    """The rows with neighbouring axes as one, where more of them then lie side by side."""
    if rows.along or rows.axis % rows.native == 0:
        return rows
    merged = merged_axes.merged(rows.staged)
    found = row_stages.plan(merged.func, rows.output, rows.target) if merged else None
    if not isinstance(found, Rows) or not (found.along or found.axis > rows.axis):
        return rows
    return replace(found, func=rows.func, merged=merged)


def width(rows: Rows) -> int:
    """How many rows side by side take the least time for each.

    A single vector waits for itself: 845 maxima of 33 take 29 us by 13 and 15 us by 65.
    """
    found = [w for w in rows.widths if w <= _REGISTERS * rows.native or w == rows.axis]
    if rows.threads:  # each thread wants rows of its own
        found = [w for w in found if rows.tasks(w) >= rows.target.threads] or found
    return min(found, key=lambda width: (_cycles(rows, width) / width, -width))


def _cycles(rows: Rows, width: int) -> float:
    """What one step of the reductions of so many rows takes, about."""
    vectors = -(-width // rows.native)
    if vectors <= _REGISTERS:
        return max(vectors, row_stages.CHAINS)
    held = width * rows.target.vector_bits // 8 // rows.native
    return vectors * (_CACHED if held <= rows.target.l1 // 2 else _BEYOND)
