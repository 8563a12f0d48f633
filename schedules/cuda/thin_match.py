"""Products of few rows as a GPU's rule sees them: what is read side by side, by which threads."""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from hybridc.compiler.cuda.gpu import WARP, Gpu
from hybridc.compiler.interfaces import Match
from hybridc.schedules.cuda import operands
from hybridc.schedules.cuda.operands import CHUNK_BYTES
from hybridc.schedules.cuda.packed_weights import Weights
from hybridc.schedules.cuda.product_kernel import Axes, Operand, Product
from hybridc.schedules.loops import access

# What a load of 16 bytes brings: neighbours along the depth, or of the own axis; or no neighbours.
Along = Literal["depth", "own", "none"]
WORD = 4  # bytes of a sum
# On tensor cores: lanes side by side along the columns, the others of a warp along the depth; and
# a lane's sums.
LANES, BESIDE, SUMS = 8, 4, 8


@dataclass(frozen=True)
class Thin(Match):
    """A product one of whose sides has few rows: `few`, and the `many` of the other.

    Of `weights` of 8 or 4 bits the many are unpacked by whoever multiplies them.
    """

    product: Product
    few: Operand
    many: Operand
    weights: Weights | None = None

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Batch, few, many, depth."""
        batch, _, _, depth = self.product.sizes
        return batch, self.few.extent, self.many.extent, depth

    @property
    def chunk(self) -> int:
        """Elements in 16 bytes; of packed weights, what is read of the few beside a piece."""
        if self.weights:
            return min(CHUNK_BYTES // operands.size_of(self.few), self.weights.deep)
        return CHUNK_BYTES // operands.size_of(self.many)

    @property
    def tensor(self) -> bool:
        """Whether tensor cores multiply what is unpacked.

        The few are of 16 bits then, and lanes along the depth have pieces of one group.
        """
        if self.weights is None:
            return False
        kind = self.few.dtype
        known = kind == "float16" or (kind == "bfloat16" and "mma.bf16" in self.gpu.features)
        return known and self.sizes[3] // self.weights.groups % (BESIDE * self.weights.deep) == 0

    @property
    def gpu(self) -> Gpu:
        """The GPU that it is for."""
        return self.target.device

    @property
    def size(self) -> int:
        """Bytes of an element of the large side."""
        return operands.size_of(self.many)

    @property
    def total(self) -> str:
        """The type of sums: of bytes they are integers."""
        return "int32" if self.size == 1 else "float32"

    @property
    def packed(self) -> bool:
        """Whether bytes of both sides stay four in a register, as `dp4a` multiplies them."""
        return self.size == 1 and self.along == self.lies(self.few) == "depth"

    @property
    def sums(self) -> int:
        """Sums of a thread: tensor cores always have those of eight rows."""
        return SUMS if self.tensor else self.few.extent * self.wide

    @property
    def held(self) -> int:
        """Registers for what is read of the large side at once."""
        if self.weights:
            return self.weights.held
        return CHUNK_BYTES // WORD if self.packed else self.deep * self.wide

    @cached_property
    def along(self) -> Along:
        """How the large side is read."""
        if self.weights:
            return "depth"
        return self.lies(self.many)

    def lies(self, side: Operand) -> Along:
        """Along which axis 16 bytes of a side lie side by side, wholly there or not."""
        load, condition = operands.plain(side.value)
        if load is None or condition is not None or str(load.ty.dtype) != side.dtype:
            return "none"
        if operands.contiguous(side, load, self.product.depth, self.chunk):
            return "depth"
        own = side.own and operands.contiguous(side, load, side.own, self.chunk)
        return "own" if own else "none"

    @property
    def neighbours(self) -> Along:
        """Along which axis threads read neighbours of the large side, one element or more each."""
        load, _ = operands.plain(self.many.value)
        if self.along != "none" or load is None:
            return self.along
        axes: tuple[tuple[Along, Axes], ...] = (
            ("depth", self.product.depth),
            ("own", self.many.own),
        )
        for name, each in axes:
            wide = [axis for axis, extent in each if extent > 1]
            if wide and access.stride(load.indices, load.source, wide[-1]) == 1:
                return name
        return "none"

    @property
    def deep(self) -> int:
        """Steps of the depth in what is read at once."""
        if self.weights:
            return self.weights.deep
        return self.chunk if self.along == "depth" else 1

    @property
    def wide(self) -> int:
        """Elements of the own axis in what is read at once."""
        if self.weights:
            return self.weights.wide
        return self.chunk if self.along == "own" else 1


@dataclass(frozen=True)
class Thread:
    """How work is divided: `lanes` of a block are side by side along the large side's own axis.

    Its other threads divide the depth, and so do the `splits` blocks of a cluster.
    """

    threads: int
    lanes: int
    unroll: int
    splits: int = 1

    @property
    def warps(self) -> int:
        """Warps of a block."""
        return self.threads // WARP

    @property
    def deep(self) -> int:
        """Threads that divide the depth."""
        return self.threads // self.lanes * self.splits


def shared(match: Thin, how: Thread) -> int:
    """Bytes of shared memory of a block: sums of each warp."""
    return how.warps * match.few.extent * how.lanes * match.wide * WORD
