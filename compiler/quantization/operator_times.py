"""How long products take in two precisions, by the kernels that were timed in two artifacts.

Kernels are told by the operations that they are asked for: products with as many of them share a
time.  What no kernel tells, such as products that a pass joined, is estimated from arithmetic and
traffic, on the scale of those that were timed.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from hybridc.compiler.quantization import sensitivity
from hybridc.compiler.quantization.sensitivity import Operator
from hybridc.compiler.target import Target

if TYPE_CHECKING:  # imports TVM
    from hybridc.compiler.measurement.profile import KernelTime

# Seconds of one call of a kernel, by its FLOPs.
Seconds = Mapping[int, float]


def by_flops(kernels: "Iterable[KernelTime]") -> dict[int, float]:
    """The mean of the kernels with so many FLOPs a call; those that tell none are left out."""
    sums: dict[int, tuple[float, int]] = {}
    for each in kernels:
        if each.flops:
            seconds, calls = sums.get(each.flops, (0.0, 0))
            sums[each.flops] = seconds + each.seconds, calls + each.calls
    return {flops: seconds / calls for flops, (seconds, calls) in sums.items() if calls}


@dataclass(frozen=True)
class OperatorTimes:
    """Seconds of operators as they were and in 8 bits; `wide` and `narrow` were measured."""

    operators: Sequence[Operator]
    target: Target
    wide: Seconds = field(default_factory=dict[int, float])
    narrow: Seconds = field(default_factory=dict[int, float])

    def of(self, operator: Operator) -> tuple[float, float]:
        """As it was, and in 8 bits."""
        if (known := self.measured(operator)) is not None:
            return known
        wide, narrow = sensitivity.seconds(operator, self.target)
        return wide * self._scale, narrow * self._scale

    def measured(self, operator: Operator) -> tuple[float, float] | None:
        """The same where both were timed, else None."""
        flops = 2 * operator.macs
        wide, narrow = self.wide.get(flops), self.narrow.get(flops)
        return None if wide is None or narrow is None else (wide, narrow)

    @cached_property
    def _scale(self) -> float:
        """How many times as long as estimated those take that were timed; 1 where none was."""
        pairs = [(self.measured(o), sensitivity.seconds(o, self.target)) for o in self.operators]
        timed = [(sum(found), sum(guess)) for found, guess in pairs if found is not None]
        total = sum(guess for _, guess in timed)
        return sum(found for found, _ in timed) / total if total else 1.0
