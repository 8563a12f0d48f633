"""How an attention is cut on a GPU: what its blocks and threads have of it, and what that takes."""

from dataclasses import dataclass

from hybridc.compiler.cuda.gpu import CLUSTERS, MOST_CLUSTERED, WARP
from hybridc.compiler.interfaces import Point
from hybridc.schedules.cuda.attention import Flash
from hybridc.schedules.cuda.operands import ROW_BYTES

# Bytes of what one `mma` multiplies along its depth, and features of values side by side.
_DEEP_BYTES = 32
_SIDE = 16
STEPS = ROW_BYTES // _DEEP_BYTES  # of products along 128 bytes, the depth of a tile
PAD = 8  # floats behind each row of results in shared memory, against bank conflicts
_FLOAT = 4
_MOST_HELD = 32  # registers for queries, which are read again for each block of keys otherwise
_OTHER_REGISTERS, _MASK_REGISTERS = 40, 8
# Registers of a lane on CUDA cores for chunks of 4 of 8 columns side by side.
_BESIDE = 32


@dataclass(frozen=True)
class Cut:
    """How an attention is cut: rows of a block and a warp, columns met at once, by how many warps.

    Keys are divided among `splits` blocks, whose results are joined within a cluster, where the GPU
    has such and these are no more than it takes, or by another launch; `stages` blocks of
    keys and values are in shared memory; by `warpgroups`, four warps multiply together.  `kind` is
    how products are multiplied.
    """

    rows: int
    warp_rows: int
    columns: int
    key_warps: int
    splits: int
    stages: int
    warpgroups: int
    clusters: bool
    masked: bool
    depth: int
    features: int
    by_depth: bool
    kind: str

    @classmethod
    def of(cls, match: Flash, point: Point) -> "Cut":
        """The cut of a canonical point."""
        by_depth = match.sources[2].by_depth
        return cls(
            **point,
            clusters=CLUSTERS in match.gpu.features,
            masked=not match.plain,
            depth=match.depth,
            features=match.features,
            by_depth=by_depth,
            kind=match.kind,
        )

    @property
    def tensor(self) -> bool:
        """Whether tensor cores multiply."""
        return self.kind != "float32"

    @property
    def ahead(self) -> int:
        """Blocks of keys that are copied while one is met; warpgroups still meet values behind."""
        return self.stages - 1 - self.warpgroups

    @property
    def size(self) -> int:
        """Bytes of an element."""
        return 2 if self.kind in ("float16", "bfloat16") else 4

    @property
    def step(self) -> int:
        """Positions in a tile of values, which has them as its depth: 128 bytes of elements."""
        return ROW_BYTES // self.size

    @property
    def deep(self) -> int:
        """Elements of what one `mma` multiplies along its depth."""
        return _DEEP_BYTES // self.size

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
        """Tiles of 128 bytes that queries and keys have."""
        return -(-self.depth // self.step)

    @property
    def depth_steps(self) -> int:
        """Products that one after the other make a score; warpgroups multiply whole tiles."""
        return self.depth_tiles * STEPS if self.warpgroups else -(-self.depth // self.deep)

    @property
    def width(self) -> int:
        """Features in whole products."""
        return -(-self.features // _SIDE) * _SIDE

    @property
    def own(self) -> int:
        """Columns of a tile of values; by depth its rows are of whole 128 bytes."""
        return -(-self.width // self.step) * self.step if self.by_depth else self.width

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
        return self.key_bytes + self.columns // self.step * self.own * ROW_BYTES

    @property
    def weight_bytes(self) -> int:
        """Bytes of exponentials, which CUDA cores read of shared memory."""
        return 0 if self.tensor else self.rows * self.columns * _FLOAT

    @property
    def together(self) -> int:
        """Blocks of a cluster, which join what they have of the same rows; 1 where none does."""
        return self.splits if self.clusters and self.splits <= MOST_CLUSTERED else 1

    @property
    def alone(self) -> bool:
        """Whether one warp meets all keys of its rows, so that there is nothing to be joined."""
        return self.key_warps * self.splits == 1

    @property
    def part_floats(self) -> int:
        """Floats of the results of the warps that meet the same columns."""
        return self.rows * (self.width + PAD)

    @property
    def shared(self) -> int:
        """Bytes of shared memory: queries, stages, weights; or afterwards results and marks."""
        results = self.key_warps * (self.part_floats + 2 * self.rows) * _FLOAT
        operands = self.query_bytes + self.stages * self.stage_bytes
        return max(operands + self.weight_bytes, results)

    @property
    def held(self) -> bool:
        """Whether queries stay in registers."""
        tensor = self.tensor and not self.warpgroups
        return tensor and self.warp_rows // 16 * 4 * self.depth_steps <= _MOST_HELD

    @property
    def registers(self) -> int:
        """Registers of a thread, about."""
        sums = self.warp_rows * (self.warp_columns + self.width) // WARP
        if not self.tensor:
            # Of each row its largest score, total and factor, and a chunk of 4.
            return sums + (3 + 4) * self.warp_rows // 4 + _BESIDE + _OTHER_REGISTERS
        if self.warpgroups:
            masks = _MASK_REGISTERS if self.masked else 0
            return sums + self.columns // 4 + masks + _OTHER_REGISTERS
        down = self.warp_rows // 16
        queries = 4 * (self.depth_steps if self.held else 1)
        return sums + down * (queries + 4 + 6) + 4 + _OTHER_REGISTERS
