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
from hybridc.schedules import _analysis, _cuda_loops, _cuda_vectors, _loops, _pointwise


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
        if reason := _pointwise.unless_pointwise(_analysis.blocks(func)):
            return reason
        inlined = _loops.inline(func)
        left = _analysis.blocks(inlined)
        vectors = reduce(
            lambda common, own: tuple(n for n in common if n in own),
            (_cuda_vectors.choices(block) for block in left),
        )
        return ElementwiseMatch(
            func, target, inlined, max(block.iterations for block in left), vectors
        )

    def knobs(self, match: ElementwiseMatch) -> Space:
        """`threads` of a block; elements of a thread's `vector`."""
        return {"threads": _cuda_loops.THREADS, "vector": match.vectors}

    def default(self, match: ElementwiseMatch, target: Target) -> Point:
        """16 bytes for each thread, as long as that leaves work for all multiprocessors."""
        gpu = target.device
        vector = _cuda_loops.usual_vector(match.elements, match.vectors, gpu)
        threads = _cuda_loops.usual_threads(match.elements // vector, gpu)
        return {"threads": threads, "vector": vector}

    def schedule(self, match: ElementwiseMatch, point: Point) -> Schedule:
        """One launch for each output, and for each value that is too costly to repeat."""
        schedule = _loops.new_schedule(match.inlined)
        for block in _loops.blocks(schedule):
            _cuda_loops.spread(schedule, block.name, point["threads"], point["vector"])
        return schedule
