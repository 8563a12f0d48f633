"""Attention on a GPU: scores, softmax and weighted values in one kernel."""

from dataclasses import dataclass, replace
from typing import ClassVar

from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.kernels.attention.attention_stages import MOST_WIDTH
from hybridc.compiler.kernels.kernel_cost import MULTIPLY
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules.cuda import attention, attention_cuts, flash
from hybridc.schedules.cuda.attention import Flash
from hybridc.schedules.cuda.attention_cut import Cut
from hybridc.schedules.loops import transforms

_TF32, _FLOAT = "tf32", "float32"
# What instructions each way to multiply needs.
_NEEDS = {"float16": "mma", "bfloat16": "mma.bf16", _TF32: "mma.tf32"}
_WARPGROUPS, _REACHED = 90, 0.62  # as for products of one warp


@dataclass(frozen=True)
class CudaAttention(ScheduleRule):
    """Attention in one kernel: scores never are in memory; on tensor cores, or in float32."""

    priority: ClassVar[int] = 95
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> Flash | NotApplicable:
        """Take kernels that `fuse-attention` made for a GPU."""
        found = attention.analyse(func, target)
        if isinstance(found, NotApplicable):
            return found
        kind = _kind(found)
        if kind is None:
            return NotApplicable(f"it multiplies {' by '.join(sorted(found.types))}")
        if (feature := _NEEDS.get(kind)) and feature not in target.device.features:
            return NotApplicable(f"{target.device.arch} has no {feature}")
        if max(found.depth, found.features) > MOST_WIDTH:
            return NotApplicable(f"its heads are wider than {MOST_WIDTH}")
        return replace(found, kind=kind, rate=_rate(kind, target))

    def knobs(self, match: Flash) -> Space:
        """`rows` of a block and of a warp, `columns` at once, `key_warps`, `splits`, `stages`."""
        return attention_cuts.space(match)

    def default(self, match: Flash, target: Target) -> Point:
        """The analytic model's choice."""
        return attention_cuts.default(match)

    def canonical(self, match: Flash, point: Point) -> Point:
        """What a block has threads, registers and shared memory for."""
        return attention_cuts.canonical(match, point)

    def estimate(self, match: Flash, point: Point) -> float:
        """The analytic model's cycles."""
        return attention_cuts.estimate(match, point)

    def schedule(self, match: Flash, point: Point) -> Schedule:
        """Written out thread by thread."""
        cut = Cut.of(match, self.canonical(match, point))
        return transforms.new_schedule(flash.kernel(match, cut))


def _kind(found: Flash) -> str | None:
    """How its products are multiplied: one type, or TF32 where float32 may be rounded to it."""
    if len(found.types) > 1:
        return None
    (dtype,) = found.types
    rounded = str(found.func.attrs.get(MULTIPLY, "")) == _TF32
    kind = _TF32 if dtype == _FLOAT and rounded else dtype
    return kind if kind in (*_NEEDS, _FLOAT) else None


def _rate(kind: str, target: Target) -> float:
    """FLOP/s of its products on the whole GPU."""
    gpu = target.device
    if kind == _FLOAT:
        return gpu.fp32
    rate = gpu.tf32 if kind == _TF32 else gpu.half
    return rate * (_REACHED if gpu.capability >= _WARPGROUPS else 1)
