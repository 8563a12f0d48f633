"""Transformations that the CUDA rules for memory-bound kernels share."""

from typing import Any

from hybridc.compiler.cuda.gpu import WARP, Gpu
from hybridc.compiler.interfaces import Schedule
from hybridc.schedules.loops import access, transforms
from hybridc.schedules.loops.analysis import Block

THREADS = (64, 128, 256, 512)
# Threads of a block where nothing speaks for another number: eight such blocks fill a
# multiprocessor, and few enough wait for the slowest warp of theirs.
USUAL_THREADS = 256


def spread(schedule: Schedule, name: str, threads: int) -> None:
    """Bind a block without reductions: elements over threads and blocks.

    A reduction inside stays a loop of each thread.
    """
    fused = schedule.fuse(*_spatial_loops(schedule, name))
    extent = int(schedule.get(fused).extent)
    block, thread = schedule.split(fused, [None, min(threads, warps(extent))])
    schedule.bind(block, "blockIdx.x")
    schedule.bind(thread, "threadIdx.x")


def _spatial_loops(schedule: Schedule, name: str) -> list[Any]:
    """The loops of a block that number its elements, outside of those that it reduces over."""
    block = schedule.get_sblock(name)
    if not schedule.get_loops(block):
        return [schedule.add_unit_loop(block)]
    info = transforms.info(schedule, block)
    loops = transforms.loops_of(schedule, block)
    spatial = [loops[axis] for axis in info.spatial]
    reduced = [loops[axis] for axis in info.reduction]
    if not spatial:
        return [schedule.add_unit_loop(schedule.get_loops(block)[0])]
    if reduced:
        schedule.reorder(*spatial, *reduced)
    return spatial


def single(schedule: Schedule, name: str) -> None:
    """Run a block whose loops cannot be bound in one thread: right, if slow."""
    loops = schedule.get_loops(name)
    at = loops[0] if loops else schedule.get_sblock(name)
    thread = schedule.add_unit_loop(at)
    schedule.bind(thread, "threadIdx.x")
    block = schedule.add_unit_loop(thread)
    schedule.bind(block, "blockIdx.x")


def warps(count: int) -> int:
    """Threads for so many tasks: whole warps."""
    return -(-max(1, count) // WARP) * WARP


def usual_vector(elements: int, choices: tuple[int, ...], gpu: Gpu) -> int:
    """The widest vector that leaves every multiprocessor a block."""
    fitting = [n for n in choices if elements // n >= gpu.sms * USUAL_THREADS]
    return max(fitting, default=1)


def usual_threads(tasks: int, gpu: Gpu) -> int:
    """Threads of a block so that there are blocks for all multiprocessors, if there is work."""
    fitting = [n for n in THREADS if n <= USUAL_THREADS and tasks >= n * gpu.sms]
    return max(fitting, default=THREADS[0])


def slides(block: Block) -> bool:
    """Whether some index of a load depends on kept and on reduced axes."""

    def among(index: Any, axes: Any) -> bool:
        return any(access.uses(index, axis) for axis in axes)

    return any(
        among(index, block.spatial) and among(index, block.reduction)
        for load in block.loads
        for index in load.indices
    )
