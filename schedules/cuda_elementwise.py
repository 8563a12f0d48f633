"""Elementwise kernels on a GPU: any chain of them is one pass over memory."""

from dataclasses import dataclass
from functools import reduce
from typing import ClassVar

from hybridc.compiler.interfaces import (
    Match,
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules.cuda import launch_loops, vector_nest
from hybridc.schedules.loops import analysis, pointwise, transforms


@dataclass(frozen=True)
class ElementwiseMatch(Match):
    """The kernel with all that can be inlined inlined, its largest block and legal vectors."""

    inlined: PrimFunc
    elements: int
    vectors: tuple[int, ...]


@dataclass(frozen=True)
class CudaElementwise(ScheduleRule):
    """Elementwise kernels: inlined into one pass, a vector of neighbours for each thread."""

    priority: ClassVar[int] = 10
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> ElementwiseMatch | NotApplicable:
        """Take kernels without reductions: arithmetic, casts, broadcasts, gathers of rows."""
        if reason := pointwise.unless_pointwise(analysis.blocks(func)):
            return reason
        inlined = transforms.inline(func)
        left = analysis.blocks(inlined)
        vectors = reduce(
            lambda common, own: tuple(n for n in common if n in own),
            (vector_nest.widths(block) for block in left),
        )
        return ElementwiseMatch(
            func, target, inlined, max(block.iterations for block in left), vectors
        )

    def knobs(self, match: ElementwiseMatch) -> Space:
        """`threads` of a block; elements of a thread's `vector`."""
        return {"threads": launch_loops.THREADS, "vector": match.vectors}

    def default(self, match: ElementwiseMatch, target: Target) -> Point:
        """16 bytes for each thread, as long as that leaves work for all multiprocessors."""
        gpu = target.device
        vector = launch_loops.usual_vector(match.elements, match.vectors, gpu)
        threads = launch_loops.usual_threads(match.elements // vector, gpu)
        return {"threads": threads, "vector": vector}

    def schedule(self, match: ElementwiseMatch, point: Point) -> Schedule:
        """One launch for each output, and for each value that is too costly to repeat."""
        if point["vector"] > 1:
            blocks = analysis.blocks(match.inlined)
            made = vector_nest.kernel(match.inlined, blocks, point["threads"], point["vector"])
            return transforms.new_schedule(made)
        schedule = transforms.new_schedule(match.inlined)
        for block in transforms.blocks(schedule):
            launch_loops.spread(schedule, block.name, point["threads"])
        return schedule
