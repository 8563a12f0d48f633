"""Whether it pays to run a model on several threads at all.

Each parallel loop costs the time in which threads hear of it and wait for each other, and in which
one core fetches what another has just written.  A model of microseconds is done before that.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

import tvm

from hybridc.compiler.aot.parts import Parts
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.kernels import kernel_cost
from hybridc.compiler.target import Target

# What kernels of any kind reach of the peak, about.
_REACHED = 0.8
# Bytes a cycle in which a core gets what another wrote, as long as that is little: then each line
# is waited for.  The digits network (1.2 MFLOP, 4 parallel loops, 26 kB between kernels) takes
# 14.7 us on one thread and 19.2 us on two of a Zen 3, 42,000 cycles more than half: 5 times the
# start of a region, and the rest over these bytes.
_EXCHANGED = 1.0


def pays(
    module: IRModule,
    calls: Sequence[tuple[str, Sequence[Any]]],
    split: Mapping[str, Parts],
    target: Target,
) -> bool:
    """Whether the parallel loops of the kernels called take less time on all threads than on one.

    `calls` are kernels with the tensors that pass between them, `split` their parts.
    """
    machine, gained, lost = target.machine, 0.0, target.machine.parallel_cycles
    for name, tensors in calls:
        loops = sum(part.tasks > 1 for part in split[name].parts)
        if not loops:
            continue
        gained += _cycles(module[name], target) * (1 - 1 / target.threads)
        # More than fits the first cache comes in a stream.
        moved = min(sum(map(_bytes, tensors)), target.l1)
        lost += loops * machine.parallel_cycles + moved / target.threads / _EXCHANGED
    return gained > lost


def _cycles(kernel: Any, target: Target) -> float:
    """Cycles of a kernel on one thread: its arithmetic, and what it reads and writes.

    They add up: where there is little arithmetic for each byte, as in depthwise convolutions, it
    does not hide the loads.
    """
    machine = target.machine
    at_once = 2 * target.lanes() * machine.fma_per_cycle * _REACHED
    moved = kernel_cost.traffic(kernel) / machine.l2_bytes_per_cycle
    return kernel_cost.flops(kernel) / at_once + moved


def _bytes(tensor: Any) -> int:
    element = tvm.DataType(str(tensor.ty.dtype))
    count = prod(map(int, tensor.ty.shape.values))
    return -(-count * int(element.bits) * int(element.lanes) // 8)
