"""When a depthwise convolution and the 1x1 convolutions around it are better one kernel.

Separate kernels write what lies between to memory and read it back; joined, each task computes
some image rows through all stages, and repeats the rows that its window shares with the next.
"""

from dataclasses import dataclass, replace

from hybridc.compiler.target import Target

# What 1x1 and depthwise kernels reach of the multiply-adds of a core, measured.
_POINTWISE, _WINDOW = 0.95, 0.85
# Share of the L2 cache for what lies between the stages; weights and results need the rest.
_SHARE = 0.75


@dataclass(frozen=True)
class Bottleneck:
    """An expansion (0 `inputs` for none), a depthwise window and a projection (0 `outputs`).

    `size` and `output_size` are height and width before and behind the window; `rows` are the
    window's, `top` is the padding above.
    """

    images: int
    size: tuple[int, int]
    output_size: tuple[int, int]
    inputs: int
    channels: int
    outputs: int
    window: tuple[int, int]
    stride: int
    top: int

    def halo(self, chunk: int) -> int:
        """Rows that `chunk` rows behind the window read before it."""
        return min(self.size[0], (chunk - 1) * self.stride + self.window[0])

    def expanded_rows(self, chunk: int) -> int:
        """Rows before the window that all tasks of `chunk` rows compute, for one image."""
        total = 0
        for first in range(0, self.output_size[0], chunk):
            begin = max(0, first * self.stride - self.top)
            end = (first + chunk - 1) * self.stride - self.top + self.window[0]
            total += min(self.size[0], end) - begin
        return total

    def held(self, chunk: int) -> int:
        """Bytes that a task holds between its stages: behind the window one row at a time."""
        before = self.halo(chunk) * self.size[1] if self.inputs else 0
        behind = self.output_size[1] if self.outputs else 0
        return 4 * self.channels * (before + behind)


def chunks(case: Bottleneck) -> tuple[int, ...]:
    """How many output rows a task may take; of several images, a whole one.

    TVM's schedules refuse rows that overlap within each of several images.
    """
    height = case.output_size[0]
    if case.images > 1:
        return (height,)
    return tuple(rows for rows in range(1, height + 1) if height % rows == 0)


def best_chunk(case: Bottleneck, target: Target) -> int:
    """The output rows of a task with the least cycles."""
    return min(chunks(case), key=lambda chunk: joined_cycles(case, chunk, target))


def joined_cycles(case: Bottleneck, chunk: int, target: Target) -> float:
    """Cycles of the joined kernel, which may be a window alone."""
    machine = target.machine
    tasks = case.images * (case.output_size[0] // chunk)
    rounds = -(-tasks // target.threads) * target.threads / tasks
    expanded = case.images * case.expanded_rows(chunk) * case.size[1]
    behind = case.images * case.output_size[0] * case.output_size[1] if case.outputs else 0
    between = 4 * case.channels * ((expanded if case.inputs else 0) + behind)
    near = case.held(chunk) <= _SHARE * target.l2
    rate = machine.l2_bytes_per_cycle if near else _rate(between, target)
    weights = 4 * tasks * case.channels * (case.inputs + case.outputs)
    moved = 2 * between / rate + weights / machine.l2_bytes_per_cycle
    work = _compute(case, expanded, target) + moved + _ends(case, target)
    return work * rounds / target.threads + machine.parallel_cycles


def best(case: Bottleneck, target: Target) -> Bottleneck | None:
    """The part of a chain to make one kernel of, for the fewest cycles; the rest are kernels alone.

    Rows that an expansion computes for two tasks cost more than the trip to memory where that is
    short; a projection repeats nothing.  None if every stage is better alone.
    """
    if case.window[0] < case.stride:  # rows that no window reads
        return None
    choices = [
        replace(case, inputs=inputs, outputs=outputs)
        for inputs in {case.inputs, 0}
        for outputs in {case.outputs, 0}
    ]
    found = min(choices, key=lambda part: (_chain_cycles(case, part, target), part.inputs))
    return found if found.inputs or found.outputs else None


def _chain_cycles(case: Bottleneck, part: Bottleneck, target: Target) -> float:
    """Cycles of a chain of which `part` is one kernel."""
    cycles = joined_cycles(part, best_chunk(part, target), target)
    for size, inputs, outputs in (
        (case.size, case.inputs - part.inputs, case.channels),
        (case.output_size, case.channels, case.outputs - part.outputs),
    ):
        if inputs and outputs:
            pixels = case.images * size[0] * size[1]
            moved = sum(4 * pixels * c / _rate(4 * pixels * c, target) for c in (inputs, outputs))
            work = pixels * inputs * outputs / (_multiply_adds(target) * _POINTWISE) + moved
            cycles += work / target.threads + target.machine.parallel_cycles
    return cycles


def stride(padded: int, window: int, output: int) -> int:
    """The stride of a window over `padded` rows that gives `output`."""
    return max(1, (padded - window) // (output - 1)) if output > 1 else 1


def _compute(case: Bottleneck, expanded: int, target: Target) -> float:
    """Cycles of the arithmetic on one core; `expanded` are the pixels before the window."""
    pixels = case.images * case.output_size[0] * case.output_size[1]
    pointwise = expanded * case.inputs * case.channels + pixels * case.channels * case.outputs
    window = pixels * case.channels * case.window[0] * case.window[1]
    return (pointwise / _POINTWISE + window / _WINDOW) / _multiply_adds(target)


def _multiply_adds(target: Target) -> float:
    return target.lanes() * target.machine.fma_per_cycle


def _ends(case: Bottleneck, target: Target) -> float:
    """Cycles to read the input and to write the output."""
    before = case.size[0] * case.size[1] * (case.inputs or case.channels)
    behind = case.output_size[0] * case.output_size[1] * (case.outputs or case.channels)
    sizes = (4 * case.images * values for values in (before, behind))
    return sum(size / _rate(size, target) for size in sizes)


def _rate(size: int, target: Target) -> float:
    """Bytes in a cycle to or from a tensor of so many bytes that another kernel reads or wrote.

    What fits the caches of all cores is still read by another core than wrote it, by half.
    """
    machine = target.machine
    if size > target.l3:
        return machine.dram_bytes_per_cycle
    if size > target.l2 * target.threads:
        return machine.l3_bytes_per_cycle
    return 2 / (1 / machine.l2_bytes_per_cycle + 1 / machine.l3_bytes_per_cycle)
