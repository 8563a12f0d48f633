"""How fast a CPU multiplies narrow types: the one place that every choice between types asks.

Rates are products in the time of one in fp32.  Narrow numbers can always be widened, and then take
as long as those of fp32: instructions of their own are used only where they are faster.
"""

from collections.abc import Mapping, Set
from types import MappingProxyType

# For bytes there are multiply-adds of pairs in 16 bits, as many a cycle as those of fp32, but the
# sums take an addition each, for which they wait (measured: 80 % of that on Zen 3).  In 256 bits
# windows do without most of that (`kernels.byte_windows`: 2.1).
PAIRS = 1.6
# What adds up pairs of bfloat16 in fp32.
BF16 = "avx512bf16"
# By precision, the instructions whose sums have 32 bits; the first one that a CPU has counts.
# Those of AVX512-FP16 add up in 16 bits, which the kernels here never do.
INSTRUCTIONS: Mapping[str, Mapping[str, float]] = MappingProxyType(
    {
        "bf16": {BF16: 2.0},
        "fp16": {},
        "int8": {"avx512vnni": 4.0, "avxvnni": 4.0, "avx512bw": PAIRS, "avx2": 2.1},
    }
)
# Cores, by LLVM's names, that start a product of pairs every other cycle, and two multiply-adds of
# fp32 in each: 175 and 356 GOP/s (Emerald Rapids, 2 threads).  Their fast way is AMX.
_SLOW_PAIRS = 0.5
_CORES_OF_SLOW_PAIRS = frozenset(
    {"sapphirerapids", "emeraldrapids", "graniterapids", "graniterapids-d"}
)
# Less than this is not worth operands in pairs, of which neither Winograd's algorithm nor vectors
# of other widths know.
_WORTH = 1.25


def rate(precision: str, cpu: str, features: Set[str], measured: float | None = None) -> float:
    """Products by a CPU's own instruction for a precision; 1 where it has none.

    `measured` is what a probe found for bf16, and overrules what is known of the CPU's name.
    """
    known = INSTRUCTIONS.get(precision, {}).items()
    found = next((times for name, times in known if name in features), 1.0)
    if precision != "bf16" or BF16 not in features:
        return found
    return measured or (_SLOW_PAIRS if cpu in _CORES_OF_SLOW_PAIRS else found)


def faster(rated: float) -> float:
    """Products by the faster way: the instruction's, or 1 where it is hardly or no faster."""
    return rated if rated >= _WORTH else 1.0
