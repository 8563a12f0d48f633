"""Whether it pays to run a model on several threads at all.

Each parallel loop costs the time in which threads hear of it and wait for each other, and in which
one core fetches what another has just written.  A model of microseconds is done before that.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import tvm
from tvm import relax, tirx

from hybridc.compiler.aot.parts import Parts
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import bindings_of, operator, relax_functions
from hybridc.compiler.kernels import kernel_cost
from hybridc.compiler.target import Target

# What kernels of any kind reach of the peak, about.
_REACHED = 0.8
# Bytes a cycle in which a core gets what another wrote, as long as that is little: then each line
# is waited for.  The digits network (1.2 MFLOP, 4 parallel loops, 26 kB between kernels) takes
# 14.7 us on one thread and 19.2 us on two of a Zen 3, 42,000 cycles more than half: 5 times the
# start of a region, and the rest over these bytes.
_EXCHANGED = 1.0
# Bytes a cycle that kernels read and write at least, whatever they compute of them.
_SLOWEST = 4.0
# The attribute of kernels that were scheduled for the one thread of `expected`.
ALONE = "hybridc.alone"


def pays(
    module: IRModule,
    calls: Sequence[tuple[str, Sequence[Any]]],
    split: Mapping[str, Parts],
    target: Target,
) -> bool:
    """Whether the parallel loops of the kernels called take less time on all threads than on one.

    `calls` are kernels with the tensors that pass between them, `split` their parts.  They do not
    where one was scheduled for one thread, and has fewer tasks than it might have.
    """
    if any(ALONE in module[name].attrs for name, _ in calls):
        return False
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


def gains(
    calls: Sequence[tuple[Any, Sequence[Any]]], is_weight: Callable[[Any], bool], target: Target
) -> list[Any]:
    """Cycles that all threads save of each call, or cost, as expressions of open sizes.

    `calls` are kernels with their tensors.  A kernel is taken for one parallel loop.
    """
    machine, threads, found = target.machine, target.threads, list[Any]()
    rate = max(1, round(2 * target.lanes() * machine.fma_per_cycle * _REACHED))
    for kernel, tensors in calls:
        extents = [extent for tensor in tensors for extent in tensor.ty.shape.values]
        places = {str(e): e for e in extents if not isinstance(e, tirx.IntImm)}
        moved = [_open_bytes(tensor) for tensor in tensors if not is_weight(tensor)]
        passed = tirx.min(sum(moved, _number(0)), _number(target.l1))
        moved += [_open_bytes(tensor) for tensor in tensors if is_weight(tensor)]
        computed = prod(places.values(), start=_number(kernel_cost.stated_once(kernel)))
        moved_cycles = tirx.floordiv(sum(moved, _number(0)), round(machine.l2_bytes_per_cycle))
        work = tirx.floordiv(computed, rate) + moved_cycles
        saved = work - tirx.floordiv(work, threads)
        lost = tirx.floordiv(passed, round(threads * _EXCHANGED)) + round(machine.parallel_cycles)
        found.append(saved - lost)
    return found


def _open_bytes(tensor: Any) -> Any:
    element = tvm.DataType(str(tensor.ty.dtype))
    size = (int(element.bits) * int(element.lanes) + 7) // 8
    return prod(tensor.ty.shape.values, start=_number(size))


def _number(value: int) -> Any:
    return tirx.const(value, "int64")


def expected(module: IRModule, target: Target) -> Target:
    """The target as kernels that are still to be made or scheduled find it.

    That is with one thread, where more will not pay by the products of the model, each of which is
    taken for one parallel loop, and by what others read and write.
    """
    if target.threads == 1 or target.gpu is not None:
        return target
    gained, lost = 0.0, 0.0
    mains = [main for var, main in relax_functions(module) if var.name_hint == "main"]
    for binding in (each for main in mains for each in bindings_of(main)):
        value = binding.value
        tensors = [binding.var, *_activations(value)]
        if not all(map(_is_fixed, tensors)):
            return target
        moved = sum(map(_bytes, tensors))
        if operations := _operations(module, value):
            gained += _busy(operations, target) * (1 - 1 / target.threads)
            lost += target.machine.parallel_cycles
            lost += min(moved, target.l1) / target.threads / _EXCHANGED
        elif operator(value) == "call_tir":
            gained += moved / _SLOWEST
    small = 0 < gained < lost + target.machine.parallel_cycles
    return replace(target, threads=1) if small and lost else target


def _operations(module: IRModule, value: Any) -> int:
    """What a convolution, a product or a kernel of one is asked for; 0 for anything else."""
    if operator(value) == "call_tir":
        return kernel_cost.stated(module[value.args[0]])
    if operator(value) not in ("nn.conv2d", "matmul") or not _is_fixed(value):
        return 0
    weight = value.args[1]
    if not _is_fixed(weight):
        return 0
    extents = [int(extent) for extent in weight.ty.shape.values]
    depth = extents[-2:][0]  # a vector has its depth alone
    each = prod(extents[1:]) if operator(value) == "nn.conv2d" else depth
    return 2 * prod(map(int, value.ty.shape.values)) * each


def _activations(value: Any) -> Sequence[Any]:
    """The operands of a call that are no constants."""
    if not operator(value):
        return []
    given = value.args[1].fields if operator(value) == "call_tir" else value.args
    return [each for each in given if isinstance(each, relax.Var)]


def _is_fixed(tensor: Any) -> bool:
    """Whether all sizes of a tensor, or of a tuple of them, are known."""
    shapes = [getattr(getattr(kind, "shape", None), "values", None) for kind in _kinds(tensor.ty)]
    return all(
        values is not None and all(isinstance(size, tirx.IntImm) for size in values)
        for values in shapes
    )


def _kinds(kind: Any) -> Iterator[Any]:
    """The types of the tensors in a type."""
    if isinstance(kind, tvm.ir.TupleType):
        for each in kind.fields:
            yield from _kinds(each)
    else:
        yield kind


def _cycles(kernel: Any, target: Target) -> float:
    """Cycles of a kernel on one thread: its arithmetic, and what it reads and writes.

    They add up: where there is little arithmetic for each byte, as in depthwise convolutions, it
    does not hide the loads.
    """
    moved = kernel_cost.traffic(kernel) / target.machine.l2_bytes_per_cycle
    return _busy(kernel_cost.flops(kernel), target) + moved


def _busy(operations: int, target: Target) -> float:
    return operations / (2 * target.lanes() * target.machine.fma_per_cycle * _REACHED)


def _bytes(tensor: Any) -> int:
    return sum(map(_size, _kinds(tensor.ty)))


def _size(kind: Any) -> int:
    element = tvm.DataType(str(kind.dtype))
    count = prod(map(int, kind.shape.values))
    return -(-count * int(element.bits) * int(element.lanes) // 8)
