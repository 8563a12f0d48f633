"""The analytic model that picks register tiles and task sizes of matrix-product-like kernels.

A kernel is rows x columns x depth: a tile of `rows` x `vectors` accumulators stays in registers
while depth runs; a task (what one thread takes at a time) is a chunk of row tiles times some
column panels.
"""

from collections.abc import Container, Iterator
from functools import cache
from math import ceil

from hybridc.compiler.interfaces import Point, Space
from hybridc.compiler.target import Target
from hybridc.schedules.products import cache_sets, registers
from hybridc.schedules.products.problem import Problem

# Cycles until the result of a multiply-add may be added to.
_LATENCY = 4
# Multiply-adds a cycle where vectors are narrow.
_MULTIPLY_ADDS = 2
# Cycles of one load: two a cycle, less what is lost where loads alone fill the ports.
_LOAD = 0.6
# What a stream gets of a cache's bandwidth when it has to keep up with multiply-adds.
_SHARE = 0.75
# Cycles of a step for each line that other rows push out of the L1 cache, measured.
_CONFLICT = 2.0
# Cycles to start a task: the call, and address arithmetic.
_TASK = 50
# Cycles to load a vector of 16-bit activations, to widen and to store it.
_WIDEN = 2.0
_FLOAT = 4  # bytes
# What a task may fill of the L2 cache.
_ROOM = 0.75
# The share of the registers that accumulators may take beside columns that are stored one by one.
_UNHINDERED = 0.8
_MOST_ROWS = 16
# What tasks of some panels take where last rows and columns are not whole: 1 to 1.48 (Emerald
# Rapids).  So little is enough to prefer rows that divide and cost the same otherwise.
_CROSSED = 1.05
# Cycles of a vector whose column goes to a single set of the L1 cache, measured.
_STRIP = 8.0


@cache
def divisors(value: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    return tuple(d for d in range(1, value + 1) if value % d == 0)


def divisor_below(value: int, limit: int) -> int:
    """The greatest divisor of `value` that is not above `limit`."""
    return max(d for d in divisors(value) if d <= max(1, limit))


def sums(problem: Problem, rows: int, vectors: int, target: Target) -> int:
    """Into how many sums each accumulator of a tile is divided, to be added up at the end.

    A multiply-add waits for the one before it on the same accumulator: as many are wanted as are
    under way at once, of what divides the depth and finds registers.
    """
    if not problem.divided:
        return 1
    wanted = ceil(_LATENCY / (rows * vectors * _multiply_add(problem, target)))
    most = min(2 * wanted, (target.vector_registers - vectors - 1) // (rows * vectors))
    fitting = [each for each in divisors(problem.depth) if each <= max(1, most)]
    return next((each for each in fitting if each >= wanted), fitting[-1])


def tile_cycles(problem: Problem, rows: int, vectors: int, target: Target) -> float:
    """Cycles of one register tile over the whole depth."""
    machine = target.machine
    multiply_adds = rows * vectors * _multiply_add(problem, target)
    # Accumulators that find no register are loaded and stored in each step.
    used = rows * vectors + vectors * problem.taps + 1 + problem.held
    spilled = max(0, used - target.vector_registers)
    loads = (problem.loads * (problem.columns_read(rows) + vectors) + 2 * spilled) * _LOAD
    near = _panel_bytes(problem, vectors) < _ROOM * target.l2
    fed = machine.l2_bytes_per_cycle if near else machine.l3_bytes_per_cycle
    weights = vectors * problem.lanes * problem.weight_bytes / (_SHARE * fed)
    # Where a tile is a whole image row, its ends leave out taps, and the others still wait.
    ends = 1 + 1 / rows if problem.height > 1 and rows == problem.rows else 1
    latency = _LATENCY * ends / sums(problem, rows, vectors, target)
    step = max(multiply_adds + vectors * problem.unpacking, loads, weights, latency)
    step += _CONFLICT * cache_sets.crowded_lines(problem.row_stride, rows, target)
    return problem.depth * step + _around(problem, rows, vectors, target)


def _multiply_add(problem: Problem, target: Target) -> float:
    share = problem.lanes / target.lanes()
    return problem.cycles or max(share / target.machine.fma_per_cycle, 1 / _MULTIPLY_ADDS)


def _around(problem: Problem, rows: int, vectors: int, target: Target) -> float:
    """Cycles around the loop over the depth: accumulators cleared, epilogue, stores, addresses.

    A multiply-add of three registers takes the port through which adders read, and an epilogue
    waits.  One whose activation comes from memory, as for a single vector, does not: 336x64x192
    with ReLU takes 70.4 to 70.9 us so, of which multiply-adds take 70.3, else 71.7 to 73.7 (Zen 4).
    """
    apart = vectors == 1 and target.vector_registers >= registers.EMBEDDED
    return 0.2 * rows + 10 if apart and _shallow(problem, target) else 2.0 * rows * vectors + 20


def _shallow(problem: Problem, target: Target) -> bool:
    """Whether the L1 cache holds the activations of a matrix product's tile beside its weights."""
    size = 4 * problem.depth * (_MOST_ROWS + problem.lanes)
    return problem.height == 1 and not problem.narrow and size < target.l1


def _panel_bytes(problem: Problem, vectors: int) -> float:
    return problem.depth * vectors * problem.lanes * problem.weight_bytes


def vectors_at_most(problem: Problem, wanted: int) -> int:
    """Vectors of a tile, which ends where a group of its own vectors does."""
    if problem.apart:
        return divisor_below(problem.together, wanted)
    return min(wanted, problem.panels(1))


def choose_tile(
    problem: Problem, target: Target, allowed: Container[int] = range(17)
) -> tuple[int, int]:
    """Rows (of those allowed) and vectors of the tile with the least cycles, edges counted in."""

    def cycles(tile: tuple[int, int]) -> float:
        rows, vectors = tile
        return panel_cycles(problem, rows, vectors, target) * problem.panels(vectors)

    fitting = [tile for tile in fitting_tiles(problem, target) if tile[0] in allowed]
    return min(fitting, key=cycles)


def panel_cycles(problem: Problem, rows: int, vectors: int, target: Target) -> float:
    """Cycles of one panel's tiles over one product."""
    full, rest = divmod(problem.rows, rows)
    cycles = full * tile_cycles(problem, rows, vectors, target)
    return cycles + (tile_cycles(problem, rest, vectors, target) if rest else 0.0)


def choose_chunk(problem: Problem, tile: tuple[int, int], target: Target) -> int:
    """Chunk of a task that has every panel: balanced over the threads, and kind to the L2 cache."""
    rows, vectors = tile
    panels = problem.panels(vectors)
    chunks = divisors(problem.units(rows))
    return min(chunks, key=lambda each: kernel_cycles(problem, tile, (each, panels), target))


def kernel_cycles(
    problem: Problem, tile: tuple[int, int], task: tuple[int, int], target: Target
) -> float:
    """Cycles from start to end, with the threads at work side by side."""
    (rows, vectors), (chunk, width) = tile, task
    panels, units = problem.panels(vectors), problem.units(rows)
    panel_bytes = _panel_bytes(problem, vectors)
    image_cycles = problem.height * panel_cycles(problem, rows, vectors, target)
    tasks = problem.images * (units // chunk) * (panels // width)
    rounds = -(-tasks // target.threads)
    compute = width * image_cycles * chunk / units
    if target.near and problem.images * problem.height == 1 and chunk < units:
        # The last tile may have few rows, but some thread has none but full tiles.
        compute = width * chunk * tile_cycles(problem, rows, vectors, target)
    compute += width * chunk * _strips(problem, tile, chunk, target)
    ragged = problem.height == 1 and problem.rows % rows != 0
    if ragged and 1 < chunk < units:
        # A ragged last tile is a loop of its own only where a task has one tile, or all.
        compute += width * tile_cycles(problem, rows, vectors, target) / 2
    if ragged and vectors > 1 and width < panels and problem.columns % problem.lanes:
        compute *= _CROSSED
    # Activations come from another core's cache, and again for each panel if they do not stay.
    own = problem.image_bytes * chunk / units
    activations = own + problem.halo_bytes
    stay = activations + panel_bytes < _ROOM * target.l2
    # A thread's next tasks are the other panels of the same rows.
    passes = -(-rounds * width // panels) if stay else rounds * width
    # What a thread reads of the weights comes from memory first, or is near; then again if not all
    # of it stays.
    weights = rounds * width * panel_bytes
    fresh = min(weights, panels * panel_bytes)
    kept = _shallow(problem, target) and activations + panels * panel_bytes < _ROOM * target.l2
    # No panel of a depthwise window reads another's, and a thread's next task the same halo.
    read = rounds * own + problem.halo_bytes if problem.shared == 1 else passes * activations
    compute += _WIDEN * problem.widened * activations / (_FLOAT * target.lanes())
    machine = target.machine
    again = (0 if kept else weights - fresh) + read
    first = machine.l3_bytes_per_cycle if target.near else machine.dram_bytes_per_cycle
    fetched = fresh / first + again / machine.l3_bytes_per_cycle
    if problem.packs and (chunk < units or width < panels):
        packed = problem.images * panels * panel_bytes / target.threads
        fetched += packed / machine.l3_bytes_per_cycle + machine.parallel_cycles
    return rounds * (compute + _TASK) + fetched + (machine.parallel_cycles if tasks > 1 else 0)


def _strips(problem: Problem, tile: tuple[int, int], chunk: int, target: Target) -> float:
    """Cycles of a tile below which its panel goes on, where its lines share sets of the L1 cache.

    Where the next tile is its neighbour instead, the lines that it stores follow upon these.  Tiles
    of few registers have few rows, which find room.
    """
    rows, vectors = tile
    high = target.vector_registers >= registers.EMBEDDED and _shallow(problem, target)
    distinct = cache_sets.distinct(problem.columns * 4, target)
    return _STRIP * rows * vectors / distinct if high and chunk > 1 else 0.0


def possible_tasks(
    problem: Problem, tile: tuple[int, int], target: Target
) -> Iterator[tuple[int, int]]:
    """What a task may hold.

    A ragged last panel needs a loop of its own, which it can have only where a task has every
    panel; else its bounds would be checked in the innermost loops of all.
    """
    rows, vectors = tile
    panels = problem.panels(vectors)
    ragged = problem.panels(1) % vectors != 0
    for chunk in divisors(problem.units(rows)):
        for width in (panels,) if ragged else divisors(panels):
            if not _hinders(problem, tile, (chunk, width), target):
                yield chunk, width


def _hinders(
    problem: Problem, tile: tuple[int, int], task: tuple[int, int], target: Target
) -> bool:
    """Whether last rows or a last vector that are not whole are in the way of the accumulators.

    Ordered multiply-adds (`shared_taps`) are written out, and would ask each for its row: a 1-D
    convolution of 40 pixels in tiles of 14 took four minutes to compile.
    In tasks neither of all rows nor of all panels, ragged rows share the loop over the depth of
    all: 100x300x200 takes 167 us in tiles of 13 x 2, and 71 in those of 10 x 2; 250x300x256 492 in
    tiles of 14 x 2, and 224 in tasks of all panels.  Columns of a convolution's only panel that are
    stored one by one take registers: 20 to 45 channels, 3x3 at 54x54, 432 us in tiles of 9 x 3, and
    284 in those of 6 x 3 (Emerald Rapids).
    """
    (rows, vectors), (chunk, width) = tile, task
    ragged = problem.height == 1 and problem.rows % rows != 0
    if ragged and problem.ordered:
        return True
    shared = ragged and chunk < problem.units(rows) and width < problem.panels(vectors)
    if vectors == 1 or shared or problem.columns % problem.stored(vectors, width) == 0:
        return shared and vectors > 1
    if problem.height == 1:
        return chunk == 1 and ragged
    used = rows * vectors + vectors + 1
    return problem.panels(vectors) == 1 and used > _UNHINDERED * target.vector_registers


def space(problem: Problem, target: Target) -> Space:
    """The knobs of a tiled kernel; `chunk` and `panels` are rounded down to what divides."""
    fitting = fitting_tiles(problem, target)
    units = {d for rows, _ in fitting for d in divisors(problem.units(rows))}
    panels = {d for _, vectors in fitting for d in divisors(problem.panels(vectors))}
    return {
        "rows": tuple(sorted({rows for rows, _ in fitting})),
        "vectors": tuple(sorted({vectors for _, vectors in fitting})),
        "chunk": tuple(sorted(units)),
        "panels": tuple(sorted(panels)),
    }


def default(problem: Problem, target: Target) -> Point:
    """The point that the model likes best."""
    candidates = [
        (tile, task)
        for tile in fitting_tiles(problem, target)
        for task in possible_tasks(problem, tile, target)
    ]
    tile, task = min(candidates, key=lambda pair: kernel_cycles(problem, pair[0], pair[1], target))
    return {"rows": tile[0], "vectors": tile[1], "chunk": task[0], "panels": task[1]}


def canonical(problem: Problem, point: Point) -> Point:
    """The point as a tile takes it: no larger than the kernel, tasks of whole parts of it."""
    vectors = vectors_at_most(problem, point["vectors"])
    rows = min(point["rows"], problem.rows)
    chunk = divisor_below(problem.units(rows), point["chunk"])
    panels = divisor_below(problem.panels(vectors), point["panels"])
    return {"rows": rows, "vectors": vectors, "chunk": chunk, "panels": panels}


def estimate(problem: Problem, point: Point, target: Target) -> float:
    """Cycles of a canonical point."""
    tile, task = (point["rows"], point["vectors"]), (point["chunk"], point["panels"])
    return kernel_cycles(problem, tile, task, target)


def fitting_tiles(problem: Problem, target: Target) -> list[tuple[int, int]]:
    """Tiles (rows, vectors) whose accumulators, operands and weights the registers hold."""
    groups = problem.panels(1)
    # A tile across groups of channels would need the activations of each.
    together = problem.together
    return [
        (rows, vectors)
        for rows, vectors in registers.tiles(target, problem.parts, problem.spare, problem.taps)
        if rows <= problem.rows
        and vectors <= groups
        and (problem.shared <= 1 or together % vectors == 0)
    ]
