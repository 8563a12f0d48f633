"""The roofs of a target: operations and bytes a second, measured or by the facts of its cores."""

from collections.abc import Mapping
from dataclasses import dataclass

from hybridc.compiler import peaks
from hybridc.compiler.operators import Operator
from hybridc.compiler.target import NARROW, Target

FULL = "fp32"
# Bytes of an operand beside those in fp32.
WIDTHS: Mapping[str, float] = {FULL: 1.0, "bf16": 0.5, "fp16": 0.5, "int8": 0.25}


@dataclass(frozen=True)
class Roofs:
    """Operations a second by precision, and bytes a second from memory and from the last cache.

    `lacking` says which precisions the target has no instructions for; `source` where the numbers
    come from; `cache` is the last level's size in bytes.
    """

    rates: Mapping[str, float]
    memory: float
    cached: float
    cache: int
    lacking: tuple[str, ...]
    source: str

    @property
    def balance(self) -> float:
        """FLOPs a byte in fp32 above which arithmetic is the limit, and not memory."""
        return self.rates[FULL] / self.memory

    def seconds(self, each: Operator, weights: int, precision: str, *, fused: bool = True) -> float:
        """The least time of an operator in a model with so many bytes of weights.

        Only products compute in a lower precision.  What fits into the last cache comes from
        there: activations by their own size, weights if those of the whole model fit.
        S. Williams, A. Waterman, D. Patterson: Roofline, CACM 52(4), 2009.
        """
        width = WIDTHS[precision] if each.product else 1.0
        rate = self.rates[precision] if each.product else self.rates[FULL]
        data = (each.data if fused else each.alone) * width
        moved = data / (self.cached if data <= self.cache else self.memory)
        whole = weights * width <= self.cache
        moved += each.weights * width / (self.cached if whole else self.memory)
        return max(each.flops / rate, moved)


def roofs(target: Target) -> Roofs:
    """Of this machine what was measured, if anything was; nothing is measured now."""
    facts, known = target.machine, peaks.known(target)
    cores = target.threads * facts.hertz
    full = known.flops if known else 2 * target.lanes() * facts.fma_per_cycle * cores
    rates = {FULL: full} | {p: full * target.faster(p) for p in NARROW}
    if known:
        rates |= {p: rate for p in ("bf16", "int8") if (rate := getattr(known, p))}
    lacking = tuple(p for p in NARROW if rates[p] <= full)
    told = "measured" if known or facts.measured else "assumed: nobody probed this machine"
    return Roofs(
        rates,
        known.bandwidth if known else facts.dram_bytes_per_cycle * cores,
        facts.l3_bytes_per_cycle * cores,
        target.l3,
        lacking,
        told,
    )
