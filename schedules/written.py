"""Kernels whose loops are written out where they are lowered."""

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
from hybridc.compiler.kernels.tensor_expressions import is_written
from hybridc.compiler.target import Target
from hybridc.schedules.loops import transforms


@dataclass(frozen=True)
class Written(ScheduleRule):
    """Kernels whose loops, vectors and threads are written out already, such as sorts."""

    priority: ClassVar[int] = 95

    def match(self, func: PrimFunc, target: Target) -> Match | NotApplicable:
        """Take kernels that say so of themselves."""
        if not is_written(func):
            return NotApplicable("its loops are not written out")
        return Match(func, target)

    def knobs(self, match: Match) -> Space:
        """`threads` where the kernel has loops for them, or one thread."""
        return {"threads": (0, 1)}

    def default(self, match: Match, target: Target) -> Point:
        """The threads that the kernel was written for."""
        return {"threads": 1}

    def schedule(self, match: Match, point: Point) -> Schedule:
        """The kernel as it is, or without threads."""

        def serial(loop: Any) -> Any:
            if int(loop.kind) != tirx.ForKind.PARALLEL:
                return loop
            return tirx.For(
                *(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body),
                None,
                loop.annotations,
            )

        if point["threads"]:
            return transforms.new_schedule(match.func)
        body = structural_map(match.func.body, (tirx.For, serial))
        return transforms.new_schedule(match.func.with_body(body))
