"""How attention may be cut on a GPU, and which way is best by analysis."""

from collections.abc import Iterator
from itertools import product as combinations

from hybridc.compiler.cuda.gpu import MOST_THREADS, WARP
from hybridc.compiler.cuda.resources import occupancy
from hybridc.compiler.interfaces import Point, Space
from hybridc.schedules.cuda.attention import Flash
from hybridc.schedules.cuda.attention_cut import Cut
from hybridc.schedules.cuda.warpgroups import WARPS

_FLOAT = 4
_ROWS = (16, 32, 64, 128)
# Beside these, of three warpgroups, whose threads have 168 registers each; and stages for those.
_GROUP_ROWS, _GROUP_STAGES = (192,), (4,)
_WARP_ROWS = (16, 32)
_COLUMNS = (32, 64, 128)
# Rows that a lane on CUDA cores has every fourth of; columns of a warp at least, there and on
# tensor cores: as many as a tile of values has positions, and what one load of keys brings.
_CORE_ROWS = (8, 16, 32)
_CORE_COLUMNS, _TENSOR_COLUMNS = 32, 16
_LEAST_THREADS = 64
_MOST_PARTS = 2**31 - 1  # floats that blocks leave to be joined: what an index counts
_KEY_WARPS = (1, 2, 4)
_SPLITS = (1, 2, 4, 8, 16, 32)
_STAGES = (1, 2, 3)
_MOST_REGISTERS = 232
# How warps multiply together, and what they have at least.
_WARPGROUPS = ("float16", "bfloat16")
_TOGETHER = {"warp_rows": 16, "key_warps": 1, "splits": 1}
_LEAST = {"rows": 64, "columns": 64, "stages": 3}
# Instructions for a score: compared, scaled, made an exponential, added up, narrowed.
_SOFTMAX = 7
_POWERS = 16  # of a multiprocessor in a cycle
_DESCRIPTORS = 100  # instructions for those of a block of keys and values, and for the products
# Instructions for a copy of 16 bytes: its address, its condition, itself.
_COPY = 8
_CHUNK_BYTES = 16
_SCHEDULERS = 4
_SHARED_BYTES = 128  # of a multiprocessor in a cycle; and from the L2 cache, as for products
_L2_BYTES = 24
_CONTENTION = 0.25
# Cycles of a barrier; and for warpgroups until their first product begins: a fence, descriptors.
_BARRIER, _BEGIN = 60, 240
_MEMORY = 800  # cycles until a copy arrives
_LATENCY = 2_500
_LAUNCH = 4_000  # cycles that a second launch takes, 2 to 3 µs
# Cycles in which the blocks of a cluster meet twice, and bytes that they read of others in one.
_MEETINGS, _CLUSTER_BYTES = 800, 16


def space(match: Flash) -> Space:
    """Rows of a block and of a warp; columns at once, warps that share them; splits; stages.

    And whether four warps multiply together.
    """
    together = "wgmma" in match.gpu.features and match.kind in _WARPGROUPS
    stages: tuple[int, ...] = _STAGES if "cp.async" in match.gpu.features else _STAGES[:1]
    step = match.sources[1].step
    if together:
        stages += _GROUP_STAGES
    return {
        "rows": _ROWS + (_GROUP_ROWS if together else ()),
        "warp_rows": _CORE_ROWS if match.kind == "float32" else _WARP_ROWS,
        "columns": tuple(n for n in _COLUMNS if n % step == 0),
        "key_warps": _KEY_WARPS,
        "splits": _SPLITS,
        "stages": stages,
        "warpgroups": (0, 1) if together else (0,),
    }


def canonical(match: Flash, point: Point) -> Point:
    """The same as far as the GPU has registers, threads and shared memory."""
    made, before = dict(point), dict[str, int]()
    for knob in ("rows", "stages", "warpgroups"):
        made[knob] = min(made[knob], space(match)[knob][-1])
    if made["warpgroups"]:
        made |= _TOGETHER | {knob: max(made[knob], least) for knob, least in _LEAST.items()}
    while made != before:  # what one knob gives way to, another may have to follow
        before, made = made, _reduced(match, made)
    heads, rows, columns = match.sizes
    parts = _MOST_PARTS // (heads * rows * match.features)
    most = min(made["splits"], -(-columns // made["columns"]), parts)
    made["splits"] = max(n for n in _SPLITS if n == 1 or n <= most)
    return made


def _reduced(match: Flash, point: Point) -> dict[str, int]:
    """A point with less of what its block has no room for."""
    made, least = dict(point), _LEAST if point["warpgroups"] else {}
    choices = {
        knob: tuple(value for value in values if value >= least.get(knob, 0))
        for knob, values in space(match).items()
    }
    narrowest = _CORE_COLUMNS if match.kind == "float32" else _TENSOR_COLUMNS

    def lower(knob: str) -> None:
        made[knob] = choices[knob][choices[knob].index(made[knob]) - 1]
        made["warp_rows"] = min(made["warp_rows"], made["rows"])

    def beyond() -> bool:
        cut = Cut.of(match, made)
        registers = cut.registers * cut.threads > match.gpu.registers_per_sm
        return registers or cut.threads > MOST_THREADS or cut.shared > match.gpu.shared_per_block

    made["warp_rows"] = min(made["warp_rows"], made["rows"])
    while made["key_warps"] > 1 and made["columns"] < narrowest * made["key_warps"]:
        lower("key_warps")
    for knob in ("columns", "warp_rows"):
        while Cut.of(match, made).registers > _MOST_REGISTERS and made[knob] > choices[knob][0]:
            lower(knob)
    for knob in ("stages", "columns", "rows", "key_warps"):
        while beyond() and made[knob] > choices[knob][0]:
            lower(knob)
    return made


def default(match: Flash) -> Point:
    """The point of the least estimate; of equal ones the smallest."""
    return min(_points(match), key=lambda point: (estimate(match, point), *point.values()))


def _points(match: Flash) -> Iterator[Point]:
    choices = space(match)
    seen: set[tuple[int, ...]] = set()
    for values in combinations(*choices.values()):
        point = canonical(match, dict(zip(choices, values, strict=True)))
        many = Cut.of(match, point).threads >= _LEAST_THREADS
        if (key := tuple(point.values())) not in seen and many:
            seen.add(key)
            yield point


def estimate(match: Flash, point: Point) -> float:
    """Cycles of one call: waves of blocks, each as slow as its slowest supply."""
    cut, gpu = Cut.of(match, canonical(match, point)), match.gpu
    heads, rows, columns = match.sizes
    used = occupancy(cut.threads, cut.registers, cut.shared, gpu)
    room = max(1, round(used * gpu.threads_per_sm / cut.threads))
    blocks = -(-rows // cut.rows) * heads * cut.splits
    waves = -(-blocks // (gpu.sms * room))
    last = -(-(blocks - (waves - 1) * gpu.sms * room) // gpu.sms)
    met = columns if not match.first else min(columns, match.first + rows // 2)
    steps = -(-met // (cut.columns * cut.splits))
    apart = 0.0
    if cut.together > 1:
        joined = cut.key_warps * min(cut.rows, rows) * cut.width * _FLOAT
        apart = _MEETINGS + joined * min(room, last) / _CLUSTER_BYTES
    elif cut.splits > 1:
        moved = 2 * cut.splits * heads * rows * cut.width * _FLOAT
        apart = _LAUNCH + moved / gpu.sms / _L2_BYTES
    read = heads * (rows + 2 * columns) * (match.depth + match.features) * cut.size / 2
    least = read / gpu.bandwidth * gpu.clock
    whole = (waves - 1) * _step(match, cut, room) + _step(match, cut, last)
    return max(steps * whole + waves * _LATENCY + apart, least)


def _step(match: Flash, cut: Cut, resident: int) -> float:
    """Cycles in which the blocks of a multiprocessor meet a block of keys each."""
    gpu, warps = match.gpu, cut.threads // WARP
    idle = max(1.0, _SCHEDULERS / (warps * resident))
    wide = cut.depth_steps * cut.deep + cut.width
    of_all = (gpu.half if cut.warpgroups else match.rate) / gpu.clock / gpu.sms / 2
    fetched = cut.columns * wide * cut.size
    key, value = match.sources[1:]
    copied = cut.columns * cut.depth_tiles * key.copies
    copied += cut.columns // cut.step * cut.own * value.copies
    issued, read = _of_warp(cut)
    supplies = (
        cut.rows * cut.columns * wide / of_all * idle * resident,
        warps * read * resident,
        cut.rows * cut.columns / _POWERS * resident,
        warps * issued / _SCHEDULERS * idle * resident,
        fetched / _L2_BYTES * resident,
        copied / WARP * _COPY / _SCHEDULERS * idle * resident,
    )
    slowest = max(supplies)
    exposed = (_BARRIER + cut.warpgroups * _BEGIN + fetched / _L2_BYTES / cut.stages) / resident
    busy = slowest + _CONTENTION * (sum(supplies) - slowest) + exposed
    # A copy has as many steps to arrive as there are stages ahead; without one, its block waits.
    if cut.stages == 1:
        return max(busy, _MEMORY + busy / resident)
    return max(busy, _MEMORY / (cut.stages - 1))


def _of_warp(cut: Cut) -> tuple[float, float]:
    """Instructions of a warp that meets a block of keys, and cycles of shared memory."""
    scores = cut.warp_rows * cut.warp_columns // WARP
    softmax = scores * _SOFTMAX
    wide = cut.depth_steps * cut.deep + cut.width
    if not cut.tensor:
        # Chunks of 4 of each row and column, which eight lanes or four have in common; the weights.
        down, across = cut.warp_rows // 4, cut.warp_columns // 8
        chunks = cut.depth * (down + across) + cut.warp_columns * (down + cut.width // 8)
        return scores * wide + chunks / 4 + softmax + scores, chunks / 4 + scores
    if cut.warpgroups:
        # Four warps read keys and values together.
        read = cut.warp_rows * cut.depth_steps * cut.deep + cut.columns * wide / WARPS
        return softmax + _DESCRIPTORS, read * cut.size / _SHARED_BYTES
    read = cut.warp_columns * wide + (0 if cut.held else cut.warp_rows * cut.depth_steps * cut.deep)
    products = cut.warp_rows // 16 * cut.warp_columns * wide // (8 * cut.deep)
    # One load brings 16 bytes for each lane.
    loads = read * cut.size / (_CHUNK_BYTES * WARP)
    return products + loads + softmax, read * cut.size / _SHARED_BYTES
