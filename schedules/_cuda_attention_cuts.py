"""How attention may be cut on a GPU, and which way is best by analysis."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as combinations

from hybridc.compiler.cuda.gpu import MOST_THREADS, WARP
from hybridc.compiler.cuda.resources import occupancy
from hybridc.compiler.interfaces import Point, Space
from hybridc.schedules._cuda_attention import Flash
from hybridc.schedules._cuda_operands import ROW_BYTES

# Positions in a tile of values, which has them as its depth: 128 bytes of 16-bit elements.
STEP = 64
# Elements of what one `mma` multiplies along its depth, and of a block of values side by side.
DEEP = 16
PAD = 4  # floats behind each row of results in shared memory, against bank conflicts
_FLOAT = 4
_ROWS = (16, 32, 64, 128)
_WARP_ROWS = (16, 32)
_COLUMNS = (64, 128)
_LEAST_THREADS = 64
_MOST_PARTS = 2**31 - 1  # floats that blocks leave to be joined: what an index counts
_KEY_WARPS = (1, 2, 4)
_SPLITS = (1, 2, 4, 8, 16, 32)
_STAGES = (1, 2, 3)
_MOST_HELD = 32  # registers for queries, which are read again for each block of keys otherwise
_OTHER_REGISTERS = 40
_MOST_REGISTERS = 232
# Instructions for a score: scaled, compared, made an exponential, added up, narrowed.
_SOFTMAX = 8
# Instructions for a copy of 16 bytes: its address, its condition, itself.
_COPY = 8
_CHUNK_BYTES = 16
_SCHEDULERS = 4
_SHARED_BYTES = 128  # of a multiprocessor in a cycle; and from the L2 cache, as for products
_L2_BYTES = 24
_CONTENTION = 0.25
_BARRIER = 60
_MEMORY = 800  # cycles until a copy arrives
_LATENCY = 2_500
_LAUNCH = 4_000  # cycles that a second launch takes, 2 to 3 µs


@dataclass(frozen=True)
class Cut:
    """How an attention is cut: rows of a block and a warp, columns met at once, by how many warps.

    Keys are divided among `splits` blocks, whose results another launch joins; `stages` blocks of
    keys and values are in shared memory.
    """

    rows: int
    warp_rows: int
    columns: int
    key_warps: int
    splits: int
    stages: int
    depth: int
    features: int
    by_depth: bool

    @classmethod
    def of(cls, match: Flash, point: Point) -> "Cut":
        """The cut of a canonical point."""
        return cls(
            **point, depth=match.depth, features=match.features, by_depth=match.sources[2].by_depth
        )

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return WARP * (self.rows // self.warp_rows) * self.key_warps

    @property
    def warp_columns(self) -> int:
        """Columns of each block of keys that a warp meets."""
        return self.columns // self.key_warps

    @property
    def depth_tiles(self) -> int:
        """Tiles of 64 elements that queries and keys have."""
        return -(-self.depth // STEP)

    @property
    def depth_steps(self) -> int:
        """Products that one after the other make a score."""
        return -(-self.depth // DEEP)

    @property
    def width(self) -> int:
        """Features in whole products."""
        return -(-self.features // DEEP) * DEEP

    @property
    def own(self) -> int:
        """Columns of a tile of values; by depth its rows are of whole 128 bytes."""
        return -(-self.width // STEP) * STEP if self.by_depth else self.width

    @property
    def query_bytes(self) -> int:
        """Bytes of the queries in shared memory."""
        return self.depth_tiles * self.rows * ROW_BYTES

    @property
    def key_bytes(self) -> int:
        """Bytes of a block of keys."""
        return self.depth_tiles * self.columns * ROW_BYTES

    @property
    def stage_bytes(self) -> int:
        """Bytes of a block of keys and of values."""
        return self.key_bytes + self.columns // STEP * self.own * ROW_BYTES

    @property
    def part_floats(self) -> int:
        """Floats of the results of the warps that meet the same columns."""
        return self.rows * (self.width + PAD)

    @property
    def shared(self) -> int:
        """Bytes of shared memory: queries and stages, or afterwards the results and their marks."""
        results = self.key_warps * (self.part_floats + 2 * self.rows) * _FLOAT
        return max(self.query_bytes + self.stages * self.stage_bytes, results)

    @property
    def held(self) -> bool:
        """Whether queries stay in registers."""
        return self.warp_rows // 16 * 4 * self.depth_steps <= _MOST_HELD

    @property
    def registers(self) -> int:
        """Registers of a thread, about."""
        down = self.warp_rows // 16
        queries = 4 * (self.depth_steps if self.held else 1)
        own = self.warp_columns // 2 + self.width // 2 + queries + 4 + 6
        return down * own + 4 + _OTHER_REGISTERS


def space(match: Flash) -> Space:
    """Rows of a block and of a warp; columns at once, warps that share them; splits; stages."""
    stages = _STAGES if "cp.async" in match.gpu.features else _STAGES[:1]
    return {
        "rows": _ROWS,
        "warp_rows": _WARP_ROWS,
        "columns": _COLUMNS,
        "key_warps": _KEY_WARPS,
        "splits": _SPLITS,
        "stages": stages,
    }


def canonical(match: Flash, point: Point) -> Point:
    """The same as far as the GPU has registers, threads and shared memory."""
    made = dict(point)
    made["warp_rows"] = min(made["warp_rows"], made["rows"])

    def beyond() -> bool:
        cut = Cut.of(match, made)
        registers = cut.registers * cut.threads > match.gpu.registers_per_sm
        return registers or cut.threads > MOST_THREADS or cut.shared > match.gpu.shared_per_block

    if Cut.of(match, made).registers > _MOST_REGISTERS:
        made["columns"] = _COLUMNS[0]
    if Cut.of(match, made).registers > _MOST_REGISTERS:
        made["warp_rows"] = _WARP_ROWS[0]
    for knob, values in (("stages", _STAGES), ("columns", _COLUMNS), ("rows", _ROWS)):
        while beyond() and made[knob] > values[0]:
            made[knob] = values[values.index(made[knob]) - 1]
            made["warp_rows"] = min(made["warp_rows"], made["rows"])
    while beyond() and made["key_warps"] > 1:
        made["key_warps"] //= 2
    heads, rows, columns = match.sizes
    parts = _MOST_PARTS // (heads * rows * match.features)
    most = min(made["splits"], -(-columns // made["columns"]), parts)
    made["splits"] = max(n for n in _SPLITS if n == 1 or n <= most)
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
    waves, resident = -(-blocks // (gpu.sms * room)), min(room, -(-blocks // gpu.sms))
    met = columns if not match.first else min(columns, match.first + rows // 2)
    steps = -(-met // (cut.columns * cut.splits))
    apart = 0.0
    if cut.splits > 1:
        moved = 2 * cut.splits * heads * rows * cut.width * _FLOAT
        apart = _LAUNCH + moved / gpu.sms / _L2_BYTES
    read = heads * (rows + 2 * columns) * (match.depth + match.features)
    least = read / gpu.bandwidth * gpu.clock
    return max(waves * (steps * _step(match, cut, resident) + _LATENCY) + apart, least)


def _step(match: Flash, cut: Cut, resident: int) -> float:
    """Cycles in which the blocks of a multiprocessor meet a block of keys each."""
    gpu, warps = match.gpu, cut.threads // WARP
    idle = max(1.0, _SCHEDULERS / (warps * resident))
    wide = cut.depth_steps * DEEP + cut.width
    of_all = match.rate / gpu.clock / gpu.sms / 2
    down = cut.warp_rows // 16
    read = cut.warp_columns * wide + (0 if cut.held else cut.warp_rows * cut.depth_steps * DEEP)
    products = down * cut.warp_columns * wide // (8 * DEEP)
    loads = read // 256
    softmax = down * 16 * cut.warp_columns // WARP * _SOFTMAX
    fetched = cut.columns * wide * 2
    supplies = (
        cut.rows * cut.columns * wide / of_all * idle * resident,
        warps * read * 2 / _SHARED_BYTES * resident,
        warps * (products + loads + softmax) / _SCHEDULERS * idle * resident,
        fetched / _L2_BYTES * resident,
        fetched / _CHUNK_BYTES / WARP * _COPY / _SCHEDULERS * idle * resident,
    )
    slowest = max(supplies)
    exposed = (_BARRIER + fetched / _L2_BYTES / cut.stages) / resident
    busy = slowest + _CONTENTION * (sum(supplies) - slowest) + exposed
    # A copy has as many steps to arrive as there are stages ahead; without one, its block waits.
    if cut.stages == 1:
        return max(busy, _MEMORY + busy / resident)
    return max(busy, _MEMORY / (cut.stages - 1))
