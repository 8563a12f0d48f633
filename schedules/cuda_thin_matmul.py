"""Products of one to seven rows on a GPU: bound by memory, and read as fast as it goes."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.cuda.gpu import CLUSTERS, WARP
from hybridc.compiler.interfaces import (
    NotApplicable,
    Point,
    PrimFunc,
    Schedule,
    ScheduleRule,
    Space,
)
from hybridc.compiler.target import CUDA, Target
from hybridc.schedules.cuda import packed_weights, product_kernel, thin, thin_tensor
from hybridc.schedules.cuda.operands import CHUNK_BYTES
from hybridc.schedules.cuda.product_rule import too_thin
from hybridc.schedules.cuda.thin_match import LANES, Thin, Thread, shared
from hybridc.schedules.loops import transforms

_THREADS = (128, 256, 512)
_LANES = (1, 2, 4, 8, 16, 32)
_UNROLL = (1, 2, 3, 4, 6, 8)
_SPLITS = (1, 2, 4, 8)
_TYPES = ("float16", "bfloat16", "float32")
_BYTES = frozenset({"int8", "uint8"})
_LEAST_READS = 2  # of a thread, so that what it has to add up in the end is little beside them
_SEGMENT = 32  # bytes that memory gives at least
_LINE = 128  # and at most, to threads that read neighbours
_MOST_SUMS = 64  # in registers, of a thread
_MOST_READ = 64
_SHARED = 48 * 2**10


@dataclass(frozen=True)
class CudaThinMatmul(ScheduleRule):
    """Matrix by a few vectors: the matrix is read once, 16 bytes for each thread at a time."""

    priority: ClassVar[int] = 60
    device: ClassVar[str] = CUDA

    def match(self, func: PrimFunc, target: Target) -> Thin | NotApplicable:
        """Take products of floats, or of bytes, one side of which has fewer than eight rows."""
        if not isinstance(found := product_kernel.analyse(func, target), product_kernel.Product):
            return found
        integers = {found.left.dtype, found.right.dtype} <= _BYTES and found.sums == "int32"
        if found.dtype not in _TYPES and not integers:
            return NotApplicable(f"it multiplies {found.dtype}")
        if too_thin(found) is None:
            return NotApplicable("it has rows and columns enough for tiles")
        few, many = found.left, found.right
        if few.extent > many.extent:
            few, many = many, few
        if not many.own:
            return NotApplicable("it is a single dot product")
        made = Thin(func, target, found, few, many, packed_weights.weights(found, many))
        if made.neighbours == "none":
            return NotApplicable("its threads would read far from each other")
        return made

    def knobs(self, match: Thin) -> Space:
        """`threads`, `lanes` of them along the columns; reads to `unroll`; blocks of a cluster."""
        splits = _SPLITS if CLUSTERS in match.target.device.features else _SPLITS[:1]
        lanes = (LANES,) if match.tensor else _LANES
        return {"threads": _THREADS, "lanes": lanes, "unroll": _UNROLL, "splits": splits}

    def default(self, match: Thin, target: Target) -> Point:
        """As many reads under way as can be, of all at best, in blocks for all multiprocessors.

        Of the blocks that are so many, those with the most neighbours side by side: up to 64 bytes,
        as the depth is divided by whoever is left, and by clusters where blocks are too few.  Where
        neighbours are along the depth, as many threads go along it as read a line.
        """
        batch, _, many, _ = match.sizes
        lanes = LANES if match.tensor else _side_by_side(match)
        blocks = -(-many // (lanes * match.wide)) * batch
        steps = -(-match.sizes[3] // match.deep)
        least = _LEAST_READS * _THREADS[0] // lanes
        enough = [n for n in self.knobs(match)["splits"] if n == 1 or n * least <= steps]
        splits = next((n for n in enough if n * blocks >= match.gpu.sms), enough[-1])
        threads = 256 if steps > _LEAST_READS * 256 // lanes * splits else _THREADS[0]
        made = {"threads": threads, "lanes": lanes, "unroll": _UNROLL[-1], "splits": splits}
        made = dict(self.canonical(match, made))
        reads = -(-steps // Thread(**made).deep)
        fitting = [n for n in _UNROLL if n <= made["unroll"]]
        made["unroll"] = min(fitting, key=lambda n: (-(-reads // n), n))
        return self.canonical(match, made)

    def canonical(self, match: Thin, point: Point) -> Point:
        """What a thread has registers for, a block shared memory, and the depth steps."""
        made = dict(point)
        sums, read = match.sums, match.held + (match.deep // 2 if match.tensor else 0)
        most = _MOST_READ if sums <= _MOST_SUMS // 2 else _MOST_READ // 2
        while made["unroll"] > 1 and made["unroll"] * read > most:
            made["unroll"] //= 2
        limit = min(_SHARED, match.target.device.shared_per_block)
        while shared(match, Thread(**made)) > limit and made["lanes"] > 1:
            made["lanes"] //= 2
        steps = -(-match.sizes[3] // match.deep)
        while made["threads"] > _THREADS[0] and Thread(**made).deep > max(WARP, steps):
            made["threads"] //= 2
        while made["splits"] > 1 and Thread(**made).deep > steps:
            made["splits"] //= 2
        return made

    def schedule(self, match: Thin, point: Point) -> Schedule:
        """Written out thread by thread."""
        how, writer = Thread(**self.canonical(match, point)), thin_tensor if match.tensor else thin
        return transforms.new_schedule(writer.kernel(match, how))


def _side_by_side(match: Thin) -> int:
    """Lanes along the columns: for most neighbours of blocks that are enough for the GPU."""
    batch, _, many, _ = match.sizes
    size = match.size
    along = match.neighbours == "depth"
    wanted = [n for n in _LANES if n * match.wide * size >= _SEGMENT or along]
    fitting = [n for n in wanted if -(-many // (n * match.wide)) * batch >= match.gpu.sms]
    near = max(wanted[0], 64 // (match.wide * size), 1)
    if along:
        read = CHUNK_BYTES if match.along == "depth" else size
        near = max(1, WARP * read // _LINE)
    return min(max(fitting, default=wanted[0]), near)
