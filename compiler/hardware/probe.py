"""Measure the machine that this process runs on, once, for the models of schedules."""

from math import log2

from hybridc.compiler import settings
from hybridc.compiler.hardware import load, machine
from hybridc.compiler.hardware import probe_kernels as kernels
from hybridc.compiler.hardware.machine import Machine, unprobed
from hybridc.compiler.target import Target


def probe(target: Target) -> tuple[Machine, float]:
    """Measure what `Machine` tells; return also how many cores other programs kept busy meanwhile.

    What was measured on a quiet machine is kept, and compilations use it from now on.  Takes some
    seconds, and sets the size of TVM's thread pool.
    """
    settings.set_runtime_threads(target.threads)
    watch = load.Load()
    found, busy = measure(target), watch.others()
    if busy <= load.QUIET:
        machine.keep(found, target.threads, target.vector_bits)
    return found, busy


def measure(target: Target) -> Machine:
    """Run every kernel; figures are rounded to what repeats from one run to the next."""
    flops, pairs = kernels.flops(target) or 0.0, kernels.flops(target, "bfloat16")
    multiply_adds = flops / (2 * target.lanes() * target.threads)
    clock = kernels.hertz(target)
    # A CPU has one unit or two, or half of one for its widest vectors.
    units = 2.0 ** min(1, max(-1, round(log2(multiply_adds / clock)))) if multiply_adds else 1.0
    # Vectors of 512 bits slow the clock of some: cycles are those of a core that multiplies them.
    hertz = min(clock, multiply_adds / units or clock)
    l1, l2, l3 = (kernels.stream(target, size) / hertz for size in working_sets(target))
    dram = kernels.stream(target, 4 * target.l3 // target.threads) / hertz
    region = kernels.parallel_seconds(target) * hertz if target.threads > 1 else 1.0
    return Machine(
        fma_per_cycle=units,
        hertz=float(f"{hertz:.3g}"),
        l1_bytes_per_cycle=float(f"{l1:.2g}"),
        l2_bytes_per_cycle=float(f"{l2:.2g}"),
        l3_bytes_per_cycle=float(f"{l3:.2g}"),
        dram_bytes_per_cycle=float(f"{dram:.2g}"),
        parallel_cycles=float(f"{region:.2g}"),
        measured=True,
        bf16=max(0.5, round(2 * pairs / flops) / 2) if pairs and flops else None,
        streams=unprobed(target.cpu, target.vector_bits).streams,
    )


def working_sets(target: Target) -> tuple[int, int, int]:
    """Bytes that a thread reads over and over, so that they come from L1, L2 and L3.

    A set that is read in order leaves a cache that is smaller than it before it is read again;
    half of a cache holds what else there is.  Threads share the L3 cache.
    """
    share = target.l3 // (2 * target.threads)
    return target.l1 // 2, target.l2 // 2, max(2 * target.l2, min(4 * target.l2, share))
