"""Attention on tensor cores: scores, softmax and weighted values in one kernel."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.kernels.attention_stages import MOST_WIDTH
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules import _cuda_attention, _cuda_attention_cuts, _cuda_flash, _loops
from hybridc.schedules._cuda_attention import Flash

_NEEDS = {"float16": "mma", "bfloat16": "mma.bf16"}
_WARPGROUPS, _REACHED = 90, 0.62  # as for products of one warp


@dataclass(frozen=True)
class CudaAttention(ScheduleRule):
    """Attention of 16-bit operands: scores, softmax and weighted values in registers."""

    priority: ClassVar[int] = 95
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> Flash | NotApplicable:
        """Take kernels that `fuse-attention` made for a GPU."""
        rate = target.device.half
        if target.device.capability >= _WARPGROUPS:
            rate *= _REACHED
        found = _cuda_attention.analyse(func, target, rate)
        if isinstance(found, NotApplicable):
            return found
        types = {side.dtype for side in (found.scores.left, found.scores.right, found.values.right)}
        if len(types) > 1 or not types <= _NEEDS.keys():
            return NotApplicable(f"it multiplies {' by '.join(sorted(types))}")
        if (feature := _NEEDS[types.pop()]) not in target.device.features:
            return NotApplicable(f"{target.device.arch} has no {feature}")
        if max(found.depth, found.features) > MOST_WIDTH:
            return NotApplicable(f"its heads are wider than {MOST_WIDTH}")
        return found

    def knobs(self, match: Flash) -> Space:
        """`rows` of a block and of a warp, `columns` at once, `key_warps`, `splits`, `stages`."""
        return _cuda_attention_cuts.space(match)

    def default(self, match: Flash, target: Target) -> Point:
        """The analytic model's choice."""
        return _cuda_attention_cuts.default(match)

    def canonical(self, match: Flash, point: Point) -> Point:
        """What a block has threads, registers and shared memory for."""
        return _cuda_attention_cuts.canonical(match, point)

    def estimate(self, match: Flash, point: Point) -> float:
        """The analytic model's cycles."""
        return _cuda_attention_cuts.estimate(match, point)

    def schedule(self, match: Flash, point: Point) -> Schedule:
        """Written out thread by thread."""
        cut = _cuda_attention_cuts.Cut.of(match, self.canonical(match, point))
        return _loops.new_schedule(_cuda_flash.kernel(match, cut))
