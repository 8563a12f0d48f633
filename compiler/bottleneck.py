"""When a depthwise convolution and the 1x1 convolutions around it are better one kernel.

Separate kernels write what lies between to memory and read it back; joined, each task computes
some image rows through all stages, and repeats the rows that its window shares with the next.
"""

from dataclasses import dataclass

from hybridc.compiler.target import Target

# Bytes that a core moves to or from beyond its L2 cache in one cycle, and to or from its L2.
_FAR_BYTES = 8.0
_NEAR_BYTES = 32.0
# Multiply-adds of vectors in a cycle: one of 512 bits on Zen 4, two of 256 bits anywhere.
_VECTORS = 1.0
# What 1x1 and depthwise kernels reach of that, measured.
_EFFICIENCY = 0.85
# Cycles to wake the other threads and to wait for them.
_PARALLEL = 10_000
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
    """Cycles of the joined kernel."""
    tasks = case.images * (case.output_size[0] // chunk)
    rounds = -(-tasks // target.threads) * target.threads / tasks
    expanded = case.images * case.expanded_rows(chunk) * case.size[1]
    behind = case.images * case.output_size[0] * case.output_size[1] if case.outputs else 0
    between = 4 * case.channels * ((expanded if case.inputs else 0) + behind)
    rate = _NEAR_BYTES if case.held(chunk) <= _SHARE * target.l2 else _FAR_BYTES
    weights = 4 * tasks * case.channels * (case.inputs + case.outputs)
    moved = 2 * between / rate + weights / _NEAR_BYTES
    work = _compute(case, expanded, target) + moved + _ends(case)
    return work * rounds / target.threads + _PARALLEL


def separate_cycles(case: Bottleneck, target: Target) -> float:
    """Cycles of the kernels one by one."""
    expanded = case.images * case.size[0] * case.size[1]
    between = (
        4
        * case.images
        * case.channels
        * (
            (case.size[0] * case.size[1] if case.inputs else 0)
            + (case.output_size[0] * case.output_size[1] if case.outputs else 0)
        )
    )
    kernels = 1 + bool(case.inputs) + bool(case.outputs)
    # What fits the caches of all cores is still read by another core than wrote it, by half.
    rate = _FAR_BYTES if between > target.l2 else 2 * _FAR_BYTES
    work = _compute(case, expanded, target) + 2 * between / rate + _ends(case)
    return work / target.threads + kernels * _PARALLEL


def pays(case: Bottleneck, target: Target) -> bool:
    """Whether one kernel takes fewer cycles than several."""
    if case.window[0] < case.stride:  # rows that no window reads
        return False
    return joined_cycles(case, best_chunk(case, target), target) < separate_cycles(case, target)


def stride(padded: int, window: int, output: int) -> int:
    """The stride of a window over `padded` rows that gives `output`."""
    return max(1, (padded - window) // (output - 1)) if output > 1 else 1


def _compute(case: Bottleneck, expanded: int, target: Target) -> float:
    """Cycles of the arithmetic on one core; `expanded` are the pixels before the window."""
    pixels = case.images * case.output_size[0] * case.output_size[1]
    taps = case.window[0] * case.window[1]
    adds = expanded * case.inputs * case.channels
    adds += pixels * case.channels * (taps + case.outputs)
    return adds / (target.lanes() * _VECTORS * _EFFICIENCY)


def _ends(case: Bottleneck) -> float:
    """Cycles to read the input and write the output, which both ways do."""
    before = case.size[0] * case.size[1] * (case.inputs or case.channels)
    behind = case.output_size[0] * case.output_size[1] * (case.outputs or case.channels)
    return 4 * case.images * (before + behind) / _FAR_BYTES
