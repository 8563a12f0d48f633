"""The analytic model of Winograd convolutions: which tile, and how the work is cut into tasks.

A task transforms a group of tiles, multiplies them at all positions with the weights of some
output channels, and transforms back, so that transformed inputs and products stay in its core's
L2 cache.  Only activations and weights come from farther away; each byte of weights comes once in a
run: from memory, or from the last cache where a network is so small that all stay there.
"""

from collections.abc import Iterator
from functools import cache
from math import gcd

from hybridc.compiler.hardware.narrow import PAIRS
from hybridc.compiler.kernels.convolutions.winograd_work import Choice, Cut, Layer, Work, divisors
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.kernels.products.packing import round_up
from hybridc.compiler.target import Target

# Outputs a side of the tiles offered.  F(6, 3) was measured slower than F(4, 3) at 56x56 and 28x28
# pixels: their tiles are ragged, and its transforms cost more than the 21 % of products that it
# saves at best.  It also loses a further digit.
SIDES = (2, 4)
# The share of that which direct convolutions reach.
_DIRECT = 0.95
# Cycles of one load: two a cycle, less what is lost where loads alone fill the ports.
_LOAD = 0.6
_LATENCY = 4
# Cycles for each vector at each position: input and output transform, measured on Zen 4, whose
# cores have one unit for 512 bits; with two 3.5 fit best (Emerald Rapids: 43 layers, the choices
# lose 1.02 in the mean by half of these, and 1.05 by these).
_INPUT, _OUTPUT = 7.5, 7.0
_WIDE = 512  # bits of a vector
# Of two things done at once, the share of the shorter that is not hidden behind the longer: data
# from the L3 cache, and weights from memory, for which kernels ask ahead.  The model says 509 µs
# for 256 channels at 14x14 pixels, 844 for 512 at 7x7 and 366 for 64 at 56x56; with everything in
# memory these took 467, 862 and 393 (Zen 4, 2 threads).
_EXPOSED, _EXPOSED_WEIGHTS = 0.5, 0.25
# In a model of microseconds one thread finds all in its caches.  Cycles for each vector of input at
# each position, and where a task goes on to the next one; the share of multiply-adds that is not
# hidden, how often what does not fit the L1 cache is moved, and the share of the weights' way.
# Least squares over 20 layers of 8 to 64 channels at 3x3 to 32x32 pixels, both tiles: 13 % rms, and
# the fastest choice for all but four, which lose 7 to 22 % (Zen 3).
_NEAREST_INPUT, _NEAREST_JUMP, _NEAREST_PRODUCT = 4.0, 81, 0.92
_SPILLED, _NEAREST_WEIGHTS = 3.6, 0.41
# Cycles to start a task; and until weights stream again where a task goes on to the next position,
# whose weights lie elsewhere: from memory, where they come from once in a run, or from a cache.
_TASK, _JUMP, _NEAR_JUMP = 500, 500, 100
# What is used in turns stays in an L2 cache up to a share of it, and is lost from another on.
_KEPT, _LOST = 0.5, 1.1
# Tiles of the largest group: V of 64 tiles of F(4, 3) at 64 channels fills half an L2 cache.
_LARGEST_GROUP = 64
_VECTORS = (2, 3, 4)
# A saving below this is within what the model does not know.
_MARGIN = 0.9


@cache
def choices(layer: Layer, target: Target) -> tuple[Choice, ...]:
    """Direct convolution and each tile, that which the model likes best first."""
    shape, columns, group = layer.shape, layer.columns, layer.group
    cycles = {Choice(0): _MARGIN * direct_cycles(layer, target)}
    for side in SIDES if group == 1 else SIDES[:1]:
        count = tile_count(shape, layer.conv, side)
        found: dict[Choice, float] = {}
        for tiles in sorted(_rounded(count)) if shape[0] == 1 else [count]:
            image = tiles // shape[0]
            work = Work(side, tiles, image, shape[3], columns, target.lanes(), group, layer.near)
            found[Choice(side, tiles)] = work_cycles(work, cut(work, target), target)
        best = min(found, key=found.__getitem__)
        cycles[best] = found[best]
    return tuple(sorted(cycles, key=cycles.__getitem__))


def tile_count(shape: tuple[int, ...], conv: Conv2d, side: int) -> int:
    """Tiles that cover the outputs of a batch."""
    height, width = conv.output_size((shape[1], shape[2]), (3, 3))
    return shape[0] * -(-height // side) * -(-width // side)


def direct_cycles(layer: Layer, target: Target) -> float:
    """Cycles of a direct convolution: multiply-adds near peak, weights fetched once."""
    group, (batch, *image, channels) = layer.group, layer.shape
    height, width = layer.conv.output_size((image[0], image[1]), (3, 3))
    taps = 9 * channels * round_up(layer.columns, target.lanes())
    at_once = _vectors_per_cycle(target, group) * group * target.lanes() * _DIRECT * target.threads
    compute = batch * height * width * taps / at_once
    if layer.near and target.threads == 1:
        windows = target.faster("int8") / PAIRS if group > 1 else 1.0
        return compute / max(1.0, windows)
    weights = taps * 4 / group**2 / _fetched(target, layer.near)
    return _overlapped(compute, weights, _EXPOSED_WEIGHTS) + target.machine.parallel_cycles


@cache
def cut(work: Work, target: Target) -> Cut:
    """The tasks and the register tile with the least cycles."""
    return min(_cuts(work, target), key=lambda choice: work_cycles(work, choice, target))


def work_cycles(work: Work, choice: Cut, target: Target) -> float:
    """Cycles from start to end, with the threads at work side by side."""
    machine = target.machine
    if work.near and target.threads == 1:
        return _nearest_cycles(work, choice, target)
    width = choice.panels * choice.vectors
    groups, chunks = work.tiles // choice.tiles, work.vectors // width
    products = choice.panels * (choice.tiles // choice.rows) * _tile_cycles(work, choice, target)
    inputs, outputs = _transforms(work, choice, target)
    busy = work.positions * (products + outputs + _NEAR_JUMP)
    if choice.staged:
        visits = -(-groups * chunks // target.threads)
        first = min(visits, chunks)
        stage = work.positions * inputs * groups / min(target.threads, work.tiles)
        # Half of what the stage made, or more, lies in other cores' caches.
        read = max(1.0, groups / target.threads) * _transformed_bytes(work, choice)
        other = visits * _TASK + stage + read / machine.l3_bytes_per_cycle + machine.parallel_cycles
    else:
        rounds = -(-groups // target.threads)
        visits, first = rounds * chunks, chunks
        other = rounds * (work.positions * inputs + _TASK)
    # Those that come from memory for all threads at once come to each from the L3 cache.
    again = visits - first if work.near else visits
    moved = _moved(work, choice, visits, again, target) / machine.l3_bytes_per_cycle
    compute = _overlapped(visits * busy, moved, _EXPOSED) + other
    return _from_afar(work, choice, first, compute, target) + machine.parallel_cycles


def _transforms(work: Work, choice: Cut, target: Target) -> tuple[float, float]:
    """Cycles at each position of a task's input, and of its results in a chunk of columns.

    Channels that are no whole number of vectors are transformed in narrower ones.
    """
    units = target.machine.fma_per_cycle if target.vector_bits >= _WIDE else 1.0
    inputs = work.channels // gcd(work.channels, work.lanes * work.group)
    outputs = work.columns // gcd(work.columns, work.lanes)
    share = choice.panels * choice.vectors / work.vectors
    return _INPUT / units * choice.tiles * inputs, _OUTPUT / units * choice.tiles * outputs * share


def _from_afar(work: Work, choice: Cut, first: int, compute: float, target: Target) -> float:
    """Cycles with what no core's own cache holds when the kernel starts.

    These are the weights of the chunks that a thread sees for the `first` time, and the memory in
    which it transforms and multiplies: other kernels have used it since.
    """
    machine = target.machine
    scratch = _transformed_bytes(work, choice) + _multiplied_bytes(work, choice)
    compute += scratch / machine.l3_bytes_per_cycle
    if work.near:
        weights = first * _chunk_bytes(work, choice) / machine.l3_bytes_per_cycle
    else:
        weights = work.weight_bytes / (machine.dram_bytes_per_cycle * target.threads)
        compute += first * work.positions * (_JUMP - _NEAR_JUMP)
    return _overlapped(compute, weights, _EXPOSED_WEIGHTS)


def _nearest_cycles(work: Work, choice: Cut, target: Target) -> float:
    """The same on one thread, with all data in its caches."""
    width, groups = choice.panels * choice.vectors, work.tiles // choice.tiles
    chunks = groups * (work.vectors // width)
    tiles = chunks * choice.panels * (choice.tiles // choice.rows)
    products = work.positions * tiles * work.channels / work.group * _step(work, choice, target)
    at_once = work.lanes * work.group
    narrow = at_once // gcd(work.channels, at_once)
    # As narrow vectors were counted where the constants were fitted: `_transforms` has fewer.
    inputs = work.positions * work.tiles * -(-work.channels // at_once) * narrow
    used = _transformed_bytes(work, choice) + _multiplied_bytes(work, choice)
    spilled = max(0, used - target.l1) * groups
    weights = max(0, work.weight_bytes - target.l1) * groups
    moved = _SPILLED * spilled + _NEAREST_WEIGHTS * weights
    return (
        _NEAREST_PRODUCT * products
        + _NEAREST_INPUT * inputs
        + _NEAREST_JUMP * work.positions * chunks
        + moved / target.machine.l2_bytes_per_cycle
    )


def _fetched(target: Target, near: bool) -> float:
    """Bytes of weights that all threads together get in a cycle."""
    machine = target.machine
    return (machine.l3_bytes_per_cycle if near else machine.dram_bytes_per_cycle) * target.threads


def _tile_cycles(work: Work, choice: Cut, target: Target) -> float:
    """Cycles of one register tile over all input channels."""
    step = _step(work, choice, target)
    return work.channels / work.group * step + 2.0 * choice.rows * choice.vectors + 20


def _step(work: Work, choice: Cut, target: Target) -> float:
    """Cycles of one register tile for each group of input channels."""
    rows, vectors = choice.rows, choice.vectors
    multiply_adds = rows * vectors / _vectors_per_cycle(target, work.group)
    return max(multiply_adds, (rows + vectors) * _LOAD, float(_LATENCY))


def _vectors_per_cycle(target: Target, group: int) -> float:
    """Vectors of multiply-adds a cycle, where a lane takes a group of channels at once."""
    rate = target.machine.fma_per_cycle
    return rate if group == 1 else rate * PAIRS / group


def _moved(work: Work, choice: Cut, visits: int, again: int, target: Target) -> float:
    """Bytes that a thread gets from the L3 cache while it visits chunks of columns.

    In so many of the visits (`again`) it gets the chunk's weights where they have not stayed.
    """
    transformed, multiplied = _transformed_bytes(work, choice), _multiplied_bytes(work, choice)
    weights, image = _chunk_bytes(work, choice), work.image_bytes * choice.tiles / work.tiles
    lost = _missed(transformed + multiplied + work.weight_bytes + image, target) * weights
    within = _missed(transformed + multiplied + weights, target) * (transformed + 2 * multiplied)
    return visits * within + again * lost


def _missed(size: float, target: Target) -> float:
    """The share of bytes in use in turns that the L2 cache has lost when their turn comes.

    Pages lie in it by chance, so that sets are full long before the cache is.
    """
    return min(1.0, max(0.0, (size / target.l2 - _KEPT) / (_LOST - _KEPT)))


def _chunk_bytes(work: Work, choice: Cut) -> int:
    """Bytes of the weights of a chunk of columns."""
    width = choice.panels * choice.vectors * work.lanes
    return work.positions * work.channels * width * work.element


def _multiplied_bytes(work: Work, choice: Cut) -> int:
    """Bytes of a task's products with a chunk of columns."""
    return work.positions * choice.tiles * choice.panels * choice.vectors * work.lanes * 4


def _transformed_bytes(work: Work, choice: Cut) -> int:
    """Bytes of a task's transformed input."""
    return work.positions * choice.tiles * work.channels * work.element


def _overlapped(first: float, second: float, exposed: float) -> float:
    return max(first, second) + exposed * min(first, second)


def _cuts(work: Work, target: Target) -> Iterator[Cut]:
    for tiles in (group for group in work.groups if group <= _LARGEST_GROUP):
        # One vector of weights at a time was measured slow to stream.
        for vectors in [v for v in _VECTORS if work.vectors % v == 0] or [1]:
            # One register for each weight vector, one for the broadcast activation, and where sums
            # are instructions of their own, one for the products.
            limit = (target.vector_registers - work.group - vectors) // vectors
            rows = divisors(tiles, limit)[-1]
            for panels in divisors(work.vectors // vectors, work.vectors):
                for staged in (False, True) if target.threads > 1 else (False,):
                    yield Cut(rows, vectors, tiles, panels, staged)


def _rounded(count: int) -> set[int]:
    """Counts of tiles not far above `count`, of which groups of many sizes are whole."""
    limit = max(count + 2, count * 17 // 16)
    groups = range(1, min(_LARGEST_GROUP, limit) + 1)
    return {found for group in groups if (found := round_up(count, group)) <= limit}
