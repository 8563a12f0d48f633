"""Ends the loops over columns of causal attention where the rows of a block end meeting them."""

from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import Schedule as TVMSchedule
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import Schedule
from hybridc.schedules.loops.vector_loops import substitute

# Marks a loop over columns; the value is how many columns one iteration takes.
_COLUMNS = "hybridc.columns"


def mark(schedule: Schedule, loop: Any, columns: int) -> None:
    """Mark a loop of which each iteration takes so many columns, the first ones first."""
    schedule.annotate(loop, _COLUMNS, columns)


def limit(schedule: Schedule, store: Any, row: Any, first: int) -> Schedule:
    """Cut the marked loops to what the rows of the loop `row` meet.

    Row 0 meets `first` columns, every other one more than the row before.  `store` is the block
    whose second axis numbers the rows, and stands behind the marked loops in all loops that these
    stand in.  Nothing can be scheduled behind this.
    """
    name, loop = str(schedule.get(store).name_hint), schedule.get(row)
    starts: list[Any] = []

    def visit(realize: Any) -> None:
        if str(realize.block.name_hint) == name:
            zero = tirx.const(0, str(loop.loop_var.ty.dtype))
            starts.append(substitute(realize.iter_values[1], {loop.loop_var: zero}))

    func = schedule.mod["main"]
    structural_walk(func.body, (s_tir.SBlockRealize, visit))
    met = starts[0] + (first + int(loop.extent) - 1)

    def cut(node: Any) -> Any:
        if _COLUMNS not in node.annotations:
            return node
        columns = int(node.annotations[_COLUMNS])
        extent = tirx.min(node.extent, (met + (columns - 1)) // columns)
        kept = {key: value for key, value in node.annotations.items() if key != _COLUMNS}
        return tirx.For(node.loop_var, node.min, extent, node.kind, node.body, None, kept)

    body = structural_map(func.body, (tirx.For, cut))
    return TVMSchedule(tvm.IRModule({"main": func.with_body(body)}), error_render_level="fast")
