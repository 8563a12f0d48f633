"""All steps of a recurrent layer."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from tvm import tirx
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import (
    Match,
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.kernels import recurrence
from hybridc.compiler.kernels.recurrence import BLOCKS, LANES
from hybridc.compiler.kernels.tensor_expressions import FLOPS
from hybridc.compiler.target import Target
from hybridc.schedules.products import contraction

# Of a step's time on one core, what waking the others may take.
_WORTH = 0.5
# What a stream gets of a cache's bandwidth.
_SHARE = 0.75


@dataclass(frozen=True)
class Steps(Match):
    """The kernel, its layer and direction, and the multiply-adds of each of its steps."""

    layer: str
    reverse: bool
    step: float

    @property
    def sequences(self) -> int:
        """The sequences of a batch; 1 where it is open."""
        batch = self.func.params[0].shape[1]
        return int(batch) if isinstance(batch, tirx.IntImm) else 1

    @property
    def rows(self) -> tuple[int, ...]:
        """Sequences that a tile may have: their gates, and what they multiply, fit registers."""
        gates = recurrence.gates_of(self.layer)
        most = max(1, (self.target.vector_registers - 1) // (gates + 1))
        return tuple(range(1, min(most, self.sequences) + 1))


@dataclass(frozen=True)
class Recurrence(ScheduleRule):
    """Run the blocks of hidden units of each step side by side, where that is worth it."""

    priority: ClassVar[int] = 90

    def match(self, func: PrimFunc, target: Target) -> Steps | NotApplicable:
        """Take the kernels of `compiler/kernels/recurrence.py`, whose vectors stand already."""
        found = recurrence.blocks_of(func)
        if not found:
            return NotApplicable("it holds no recurrence")
        layer, reverse = recurrence.layer_of(found[0])
        time = func.params[0].shape[0]
        steps = int(time) if isinstance(time, tirx.IntImm) else 1
        step = int(found[0].annotations[FLOPS]) / 2 / steps
        return Steps(func, target, layer, reverse, step)

    def knobs(self, match: Steps) -> Space:
        """`threads` over the blocks of each step, or one thread; `rows`: sequences of a tile."""
        return {"threads": (0, 1), "rows": match.rows}

    def default(self, match: Steps, target: Target) -> Point:
        """Threads where a step takes longer than waking them, time and again; even tiles."""
        tiles = -(-match.sequences // match.rows[-1])
        rows = -(-match.sequences // tiles)
        waking = target.machine.parallel_cycles
        return {"threads": int(waking < _WORTH * _step_cycles(match, target)), "rows": rows}

    def schedule(self, match: Steps, point: Point) -> Schedule:
        """Write the kernel with its tile, and change the kind of one loop."""
        kind = tirx.ForKind.PARALLEL if point["threads"] else tirx.ForKind.SERIAL

        def visit(loop: Any) -> Any:
            if str(loop.loop_var.name) != BLOCKS or int(loop.extent) == 1:
                return loop
            return tirx.For(
                *(loop.loop_var, loop.min, loop.extent, kind, loop.body), None, loop.annotations
            )

        func = _tiled(match, point["rows"]) if point["rows"] > 1 else match.func
        return contraction.new_schedule(
            func.with_body(structural_map(func.body, (tirx.For, visit)))
        )


def _step_cycles(match: Steps, target: Target) -> float:
    """Cycles of a step on one core: its multiply-adds, or all weights from the cache they stay in.

    192 units of an LSTM take 23,000 for one sequence, of which the multiply-adds are 9,200 (Zen 4).
    """
    machine = target.machine
    size = 4 * math.prod(map(int, match.func.params[1].shape))
    fed = machine.l2_bytes_per_cycle if size < target.l2 else machine.l3_bytes_per_cycle
    read = size / (_SHARE * fed) if size > target.l1 else 0.0
    return max(match.step / (machine.fma_per_cycle * target.lanes()), read)


def _tiled(match: Steps, rows: int) -> PrimFunc:
    """The kernel with so many sequences in a tile."""
    weights = match.func.params[1]
    time, hidden = match.func.params[0].shape[0], int(weights.shape[1])
    time = int(time) if isinstance(time, tirx.IntImm) else time
    width = min(LANES, match.target.lanes())
    sizes = (match.layer, time, match.sequences, hidden)
    return recurrence.kernel(*sizes, reverse=match.reverse, rows=rows, width=width)
