"""Products of words of unsigned weights with activations of int8.

A word has 4 weights in its bytes, or 8 in the halves of these.
"""

from collections.abc import Callable
from typing import Any

from tvm import tirx

Compute = Callable[..., Any]
_LOWER = 0x0F0F0F0F
_HALF = 4  # bits


def half(load: Any, which: int) -> Any:
    """The first or second half of a load of neighbours."""
    *lead, ramp = load.indices
    lanes = int(ramp.lanes) // 2
    start = tirx.Ramp(ramp.base + which * lanes, 1, lanes)
    return tirx.BufferLoad(load.source, [*lead, start])


def of_bytes(lanes: int) -> Compute:
    """Four products for each lane, by VNNI."""

    def compute(total: Any, data: Any, weights: Any) -> Any:
        return _added(total, weights, _quad(data, lanes), lanes)

    return compute


def of_halves(lanes: int) -> Compute:
    """Eight products for each lane, by VNNI."""

    def compute(total: Any, data: Any, weights: Any) -> Any:
        for part, which in _parts(weights, lanes):
            total = _added(total, part, _quad(half(data, which), lanes), lanes)
        return total

    return compute


def of_halves_in_pairs(lanes: int) -> Compute:
    """Eight products for each lane: pairs in 16 bits, of which no sum is beyond 4 * 15 * 127."""
    pairs, wide = f"int16x{2 * lanes}", {16: "avx512.pmaddubs.w.512", 8: "avx2.pmadd.ub.sw"}
    joined = {16: "avx512.pmaddw.d.512", 8: "avx2.pmadd.wd"}

    def compute(total: Any, data: Any, weights: Any) -> Any:
        sums = [
            tirx.call_llvm_pure_intrin(
                pairs,
                f"llvm.x86.{wide[lanes]}",
                tirx.reinterpret(f"uint8x{4 * lanes}", part),
                _quad(half(data, which), lanes),
            )
            for part, which in _parts(weights, lanes)
        ]
        ones = tirx.Broadcast(tirx.const(1, "int16"), 2 * lanes)
        return total + tirx.call_llvm_pure_intrin(
            f"int32x{lanes}", f"llvm.x86.{joined[lanes]}", sums[0] + sums[1], ones
        )

    return compute


def _parts(weights: Any, lanes: int) -> list[tuple[Any, int]]:
    """The lower halves of bytes, and the upper ones, as bytes."""
    mask, shift = (tirx.Broadcast(tirx.const(n, "int32"), lanes) for n in (_LOWER, _HALF))
    return [(weights & mask, 0), (weights >> shift & mask, 1)]


def _quad(data: Any, lanes: int) -> Any:
    """Four activations in every lane."""
    spread = tirx.Broadcast(tirx.reinterpret("int32", data), lanes)
    return tirx.reinterpret(f"int8x{4 * lanes}", spread)


def _added(total: Any, weights: Any, quads: Any, lanes: int) -> Any:
    return tirx.call_llvm_pure_intrin(
        f"int32x{lanes}",
        f"llvm.x86.avx512.vpdpbusd.{32 * lanes}",
        total,
        tirx.reinterpret(f"uint8x{4 * lanes}", weights),
        quads,
    )
