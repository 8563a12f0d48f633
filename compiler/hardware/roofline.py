"""The roofs of a target: operations and bytes a second, measured or by the facts of its cores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from hybridc.compiler.anatomy.work import Operator
from hybridc.compiler.cuda.gpu import Gpu
from hybridc.compiler.hardware import peaks
from hybridc.compiler.hardware.narrow import INSTRUCTIONS
from hybridc.compiler.target import Target

FULL = "fp32"
# Where these are multiplied no faster than fp32, operands stay fp32, but for weights of products of
# a few rows, which wait for them (`passes/_wide_weights.py`).
_HALVES = ("bf16", "fp16")
_FEW = 16  # rows: 8 operations for each byte of their weights in fp32
# Bytes a second from a GPU's L2 cache beside those from its memory; assumed, data sheets tell none.
_CACHED = 2.0


@dataclass(frozen=True)
class Narrow:
    """A precision: bytes of activations and of weights beside those in fp32, and its arithmetic.

    `multiplied` is the type that products are multiplied in.
    """

    data: float
    weights: float
    multiplied: str


# Of weights alone, with their scales: one of 2 bytes for 128 weights, or for 32.
PRECISIONS: Mapping[str, Narrow] = MappingProxyType(
    {
        FULL: Narrow(1.0, 1.0, FULL),
        "tf32": Narrow(1.0, 1.0, "tf32"),
        "bf16": Narrow(0.5, 0.5, "bf16"),
        "fp16": Narrow(0.5, 0.5, "fp16"),
        "int8": Narrow(0.25, 0.25, "int8"),
        "int8-dynamic": Narrow(1.0, 0.25, "int8"),
        "int8-weights": Narrow(1.0, (1 + 2 / 128) / 4, FULL),
        "int4-weights": Narrow(1.0, (0.5 + 2 / 32) / 4, FULL),
    }
)


@dataclass(frozen=True)
class Roofs:
    """Operations a second by type, and bytes a second from memory and from the last cache.

    `lacking` says which types the target has no instructions for; `source` where the numbers
    come from; `cache` is the last level's size in bytes.  `widened` are precisions of 16 bits
    that are computed in fp32.
    """

    rates: Mapping[str, float]
    memory: float
    cached: float
    cache: int
    lacking: tuple[str, ...]
    source: str
    widened: tuple[str, ...] = ()

    @property
    def balance(self) -> float:
        """FLOPs a byte in fp32 above which arithmetic is the limit, and not memory."""
        return self.rates[FULL] / self.memory

    def seconds(
        self, each: Operator, weights: float, precision: str = FULL, *, fused: bool = True
    ) -> float:
        """The least time of an operator in a model with so many bytes of weights.

        Only products compute in a lower precision.  What fits into the last cache comes from
        there: activations by their own size, weights if those of the whole model fit.
        S. Williams, A. Waterman, D. Patterson: Roofline, CACM 52(4), 2009.
        """
        if precision in self.widened:
            return self._widened(each, weights, fused=fused)
        narrow = PRECISIONS[precision if each.product else FULL]
        data = (each.data if fused else each.alone) * narrow.data
        moved = data / (self.cached if data <= self.cache else self.memory)
        whole = weights * PRECISIONS[precision].weights <= self.cache
        held = each.weights * narrow.weights
        moved += held / (self.cached if whole else self.memory)
        rate = self.rates.get(narrow.multiplied, self.rates[FULL])
        return max(each.flops / rate, moved)

    def _widened(self, each: Operator, weights: float, *, fused: bool) -> float:
        """The same of 16 bits that are computed in fp32: as that, or with half the bytes to read.

        Widening a weight takes as long as a multiply-add of a row with it.
        """
        plain = self.seconds(each, weights, fused=fused)
        if not each.product or 2 * each.flops > _FEW * each.weights:
            return plain
        halved = replace(each, flops=each.flops + each.weights / 2, weights=each.weights / 2)
        return min(plain, self.seconds(halved, weights / 2, fused=fused))

    def total(
        self, found: Sequence[Operator], precision: str = FULL, *, fused: bool = True
    ) -> float:
        """The least time of all operators of a model, one after another."""
        weights = sum(each.weights for each in found)
        return sum(self.seconds(each, weights, precision, fused=fused) for each in found)


def roofs(target: Target) -> Roofs:
    """Of this machine what was measured, if anything was; nothing is measured now."""
    if target.gpu is not None:
        return _of_gpu(target.gpu)
    facts, known = target.machine, peaks.known(target)
    cores = target.threads * facts.hertz
    full = known.flops if known else 2 * target.lanes() * facts.fma_per_cycle * cores
    rates = {FULL: full} | {name: full * target.faster(name) for name in INSTRUCTIONS}
    if known:
        rates |= {p: max(full, rate) for p in ("bf16", "int8") if (rate := getattr(known, p))}
    widened = tuple(name for name in _HALVES if target.faster(name) == 1.0)
    rates |= dict.fromkeys(widened, full)
    origin = "measured" if known or facts.measured else "assumed: nobody probed this machine"
    return Roofs(
        rates,
        known.bandwidth if known else facts.dram_bytes_per_cycle * cores,
        facts.l3_bytes_per_cycle * cores,
        target.l3,
        tuple(p for p in INSTRUCTIONS if rates[p] <= full),
        origin,
        widened,
    )


def _of_gpu(gpu: Gpu) -> Roofs:
    """By its data sheet; bytes are multiplied twice as fast as halves, on all with instructions."""
    rates = {
        FULL: gpu.fp32,
        "tf32": gpu.tf32 if "mma.tf32" in gpu.features else gpu.fp32,
        "bf16": gpu.half if "mma.bf16" in gpu.features else gpu.fp32,
        "fp16": gpu.half,
        "int8": 2 * gpu.half if "mma.int8" in gpu.features else gpu.fp32,
    }
    lacking = tuple(name for name, rate in rates.items() if name != FULL and rate <= gpu.fp32)
    cached = _CACHED * gpu.bandwidth
    return Roofs(rates, gpu.bandwidth, cached, gpu.l2, lacking, f"data sheet of {gpu.name}")
