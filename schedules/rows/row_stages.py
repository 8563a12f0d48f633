"""Kernels whose stages run row by row: reductions, softmax, normalisations, pooling.

A row is what one element of the reductions' result stands for.  All stages of a row are computed
before the next row is begun, so that what passes between them stays in registers and the L1
cache.  Vectors lie either *across* rows (the contiguous axis is kept) or *along* the row (the
contiguous axis is reduced).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

from hybridc.compiler.interfaces import Match, NotApplicable, Point, PrimFunc, Space
from hybridc.compiler.target import Target
from hybridc.schedules.loops import analysis, merged_axes, transforms
from hybridc.schedules.loops.analysis import Block
from hybridc.schedules.products import cache_sets, tiling

# An addition takes 4 cycles and two start in each; four accumulators in flight hide most of that
# without making the tree behind them long.
CHAINS = 4
# Rows across which a vector is as wide as registers allow, and that share one task.
_TILE_REGISTERS = (1, 2, 4, 8)
# Where what is reduced lies as far apart, in bytes, a few registers of it are no stretch that the
# prefetcher follows: as much is read at a time as accumulators fit the L1 cache, unless half of all
# registers hold as much as this.
_FAR = 1024


@dataclass(frozen=True)
class Rows(Match):
    """A kernel of row stages.

    `staged` is the kernel with what can be inlined inlined, and an elementwise block `output` at
    the end.  `apart` are blocks computed beforehand, `stages` those computed row by row; `kept`
    are the positions of the output's axes that number the rows.  `along` tells where vectors lie;
    `axis` is the length of the axis under them, `fused` how many reduced axes make it up, and
    `widths` are the lanes, or the rows side by side, that fit it.  Up to `wide` rows are better
    side by side than in registers, where that is no 0.  `merged` tells the
    kernel's own axes where `staged` has fewer.
    """

    staged: PrimFunc
    output: str
    apart: tuple[str, ...]
    stages: tuple[str, ...]
    kept: tuple[int, ...]
    along: bool
    axis: int
    fused: int
    widths: tuple[int, ...]
    native: int
    threads: bool
    wide: int = 0
    merged: merged_axes.Merged | None = None

    @property
    def output_axes(self) -> int:
        """How many axes the output has."""
        found = {block.name: block for block in analysis.blocks(self.staged)}
        return len(found[self.output].spatial)

    @property
    def space(self) -> Space:
        """`width` as above; `threads` over the rows, or one thread."""
        return {"width": self.widths, "threads": (0, 1)}

    @property
    def point(self) -> Point:
        """The default: accumulators enough to hide latencies, threads where work outweighs them."""
        width = self._along_width() if self.along else self._across_width()
        return {"width": width, "threads": int(self.threads)}

    def tasks(self, width: int) -> int:
        """Groups of `width` rows."""
        extents = list(self._blocks[self.output].spatial.values())
        return prod(extents[position] for position in self.kept) // width

    @property
    def work(self) -> int:
        """Elements that the reductions combine."""
        blocks = (self._blocks[name] for name in self.stages)
        return max(prod([*b.spatial.values(), *b.reduction.values()]) for b in blocks)

    @cached_property
    def _blocks(self) -> Mapping[str, Block]:
        return {block.name: block for block in analysis.blocks(self.staged)}

    def _along_width(self) -> int:
        # Twice around the loop at least, or the tree behind it costs more than it saves.
        wide = CHAINS * self.native
        if self.axis >= 2 * wide and wide in self.widths:
            return wide
        return max(width for width in self.widths if width <= self.native)

    def _across_width(self) -> int:
        fitting = [width for width in self.widths if width <= CHAINS * self.native]
        if self.threads:  # each thread wants rows of its own, in whole registers
            shared = [w for w in fitting if self.tasks(w) >= self.target.threads]
            fitting = [w for w in shared if w % self.native == 0] or fitting
        far = [w for w in self.widths if w <= self.wide and w % self.native == 0]
        if self.threads:
            far = [w for w in far if self.tasks(w) >= self.target.threads]
        if max(far, default=0) > max(fitting):
            return max(far)
        best = max(fitting, key=lambda width: (self._filled(width), width))
        # A narrow divisor of an awkward length wastes more than accumulators in the cache do.
        return best if 2 * self._filled(best) >= self._filled(self.axis) else self.axis

    def _filled(self, width: int) -> float:
        """The share of lanes in use where registers hold `width` elements."""
        return width / (-(-width // self.native) * self.native)


def reducers(func: PrimFunc) -> tuple[str, ...]:
    """By what the kernel's reductions combine two values, such as `("Max", "Add")`."""
    found = [block for block in analysis.blocks(func) if block.reduction and block.plain]
    return tuple(type(block.body.value).__name__ for block in found)


def analyse(func: PrimFunc, target: Target, windows: bool = False) -> Rows | NotApplicable:
    """Find the row stages of a kernel; `windows` are read across rows whatever their strides."""
    raw = analysis.blocks(func)
    if not analysis.plain(raw):
        return NotApplicable("a block is not a single store under constant loops")
    if not reducers(func):
        return NotApplicable("it holds no reduction")
    if len(analysis.outputs(func, raw)) != 1:
        return NotApplicable("it has several outputs")
    staged, output = transforms.stage(func)
    found = plan(staged, output, target, windows)
    return found if isinstance(found, NotApplicable) else replace(found, func=func)


def plan(
    staged: PrimFunc,
    output: str,
    target: Target,
    windows: bool = False,
    only: tuple[str, ...] = (),
) -> Rows | NotApplicable:
    """Find the rows behind the block `output` of a kernel that is inlined already.

    `only` names the stages where other blocks that feed them are not to be touched.
    """
    found = {block.name: block for block in analysis.blocks(staged)}
    feeding = [found[name] for name in only] if only else _feeding(found, output)
    reductions = [block for block in feeding if block.reduction]
    rows = {prod(block.spatial.values()) for block in reductions}
    if len(rows) != 1:
        return NotApplicable("its reductions keep different numbers of elements")
    kept = _kept(found[output], feeding, rows.pop())
    if kept is None:
        return NotApplicable("its output does not number the reductions' rows by whole axes")
    along = False if windows else _along(reductions)
    if along is None:
        return NotApplicable("neither the reduced nor the kept axis is contiguous")
    native, wide = min(target.lanes(block.widest) for block in reductions), 0
    if along:
        axis, fused, widths = _reduced_axis(reductions, native)
    else:
        axis, fused = list(found[output].spatial.values())[kept[-1]], 0
        wide = _windows(native) if windows else _wide(reductions, target)
        widths = _across_widths(axis, native, wide)
    apart = tuple(block.name for block in feeding if _is_table(block, feeding, reductions))
    stages = tuple(block.name for block in feeding if block.name not in apart)
    return Rows(
        func=staged,
        target=target,
        staged=staged,
        output=output,
        apart=apart,
        stages=stages,
        kept=kept,
        along=along,
        axis=axis,
        fused=fused,
        widths=widths,
        native=native,
        threads=analysis.worth_threads(staged, target),
        wide=wide,
    )


def _feeding(found: Mapping[str, Block], output: str) -> list[Block]:
    """The blocks that `output` needs, in program order."""
    needed = {output}
    for block in reversed(list(found.values())):
        if any(reader.name in needed for reader in analysis.readers(block, tuple(found.values()))):
            needed.add(block.name)
    return [block for name, block in found.items() if name in needed and name != output]


def _is_table(block: Block, feeding: Sequence[Block], reductions: Sequence[Block]) -> bool:
    """Whether a block depends on no reduction and is too small to number the rows' elements."""
    if block.reduction or any(
        block in analysis.readers(other, tuple(feeding)) for other in feeding
    ):
        return False
    return block.iterations < max(reduction.iterations for reduction in reductions)


def _kept(output: Block, feeding: Sequence[Block], rows: int) -> tuple[int, ...] | None:
    """The positions of the output's axes that number the rows; None if they are no whole axes."""
    axes = list(output.spatial)
    if output.iterations == rows:
        return tuple(range(len(axes)))
    used: set[int] = set()
    for load in output.loads:
        writer = next((b for b in feeding if load.source.same_as(b.writes[0])), None)
        if writer is not None and prod(writer.spatial.values()) == rows:
            positions = [_position(index, axes) for index in load.indices]
            used.update(p for p in positions if p is not None)
    if prod(list(output.spatial.values())[p] for p in used) != rows:
        return None
    return tuple(sorted(used))


def _position(index: Any, axes: Sequence[Any]) -> int | None:
    return next((i for i, axis in enumerate(axes) if axis.same_as(index)), None)


def _along(reductions: Sequence[Block]) -> bool | None:
    """Whether the reduced axis is the contiguous one; None if neither is."""
    main = max(reductions, key=lambda block: block.iterations)
    across = [main.stride(load, list(main.spatial)[-1]) for load in main.loads if main.spatial]
    along = [main.stride(load, list(main.reduction)[-1]) for load in main.loads]
    if across and 1 in across and set(across) <= {0, 1}:
        return False
    if along and 1 in along and set(along) <= {0, 1}:
        return True
    return True if 1 in along else False if 1 in across else None


def _reduced_axis(reductions: Sequence[Block], native: int) -> tuple[int, int, tuple[int, ...]]:
    """Length, number of axes, and possible lanes of the innermost reduced axis.

    Several axes count as one where that makes whole vectors.  The length need not be a multiple
    of the lanes unless a condition restricts them.
    """
    fused = min(len(analysis.collapsible(b, tuple(b.reduction))) for b in reductions)
    wide = CHAINS * native
    for count in range(fused, 1, -1):
        axis = _length(reductions, count)
        whole = tuple(d for d in tiling.divisors(axis) if native // 4 <= d <= wide)
        if any(native <= 2 * d <= 2 * native for d in whole):
            return axis, count, whole
    axis = _length(reductions, 1)
    divisor = reductions[0].divisor(list(reductions[0].reduction)[-1])
    return axis, 1, analysis.lane_choices(axis, divisor, native)


def _length(reductions: Sequence[Block], count: int) -> int:
    return min(prod(list(block.reduction.values())[-count:]) for block in reductions)


def _windows(native: int) -> int:
    """How many windows are better side by side: they share what their padding asks.

    3x3 of stride 2 over 80 channels at 40x40 takes 11.0 us by 80 and 16.3 by 16 (Emerald Rapids),
    over 256 at 28x28 8.7 us by 128 and 8.8 by 64 (Zen 4).
    """
    return _TILE_REGISTERS[-1] * native


def _wide(reductions: Sequence[Block], target: Target) -> int:
    """How many rows are better read side by side, what is reduced being far apart; 0 if it is not.

    Their accumulators take half of the L1 cache; where several reductions read the same, that
    stays in half of the L2 cache, unless its sets are too few.  Where half of the registers hold a
    stretch long enough for the prefetcher, a single reduction's stay there, and no step loads and
    stores them: the mean of 49 rows of 1024 takes 2.1 us instead of 2.7 (Zen 4, AVX-512).
    """
    main = max(reductions, key=lambda block: block.iterations)
    last = list(main.reduction)[-1]
    itemsize = target.vector_bits // 8 // target.lanes(main.widest)
    steps = [main.stride(load, last) for load in main.loads]
    if not steps or min((step or 0) * itemsize for step in steps) < _FAR:
        return 0
    held = target.l1 // 2 // itemsize
    if len(reductions) == 1:
        kept = target.vector_registers // 2 * target.vector_bits // 8
        return kept // itemsize if kept >= _FAR else held
    count = prod(main.reduction.values())
    if not cache_sets.stay(min(step or 0 for step in steps) * itemsize, count, target):
        return held // len(reductions)
    return min(held, target.l2 // 2 // itemsize // count)


def _across_widths(axis: int, native: int, wide: int) -> tuple[int, ...]:
    """How many rows may be computed side by side: what divides them, or all."""
    widest = max(_TILE_REGISTERS[-1] * native, wide)
    fitting = [d for d in tiling.divisors(axis) if d <= widest or d == axis]
    return tuple(
        d for d in fitting if d <= _TILE_REGISTERS[-1] * native or d % native == 0 or d == axis
    )
