"""Kernels that reduce windows moving over an image, taken apart into rows and columns.

A maximum or a sum over a window is that over its columns of what is reduced over its rows.  Every
input of a row of the output is read in whole vectors then, whatever the stride, and both steps
together read rows + columns elements for each of the output, not rows x columns.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import gcd, prod
from typing import Any

from tvm import sym, tirx
from tvm.ir.expr import Call, TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler import strips
from hybridc.compiler.interfaces import Match, NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.loops import access, analysis, statements, transforms

Expr = Any  # tvm.ir.Expr
Var = Any  # tvm.ir.expr.Var

_COMBINED = (prim.Max, prim.Min, prim.Add)
# Rows, or columns, of a window that are written out.
_MOST = 32
# Bytes of a row that stay on the stack of a thread.
ROW_BYTES = 16 * 2**10
_WIDER = {"bfloat16": "float32", "float16": "float32"}


@dataclass(frozen=True)
class Windows(Match):
    """A reduction over windows, and the elementwise block `output` behind it.

    `column` is the output's axis, at `position`, along which a window moves by `stride` where its
    own `tap` moves by `dilation`; both count in columns, of which a row of the output reads
    `columns`.  `term` is what is reduced, as a function of the variable `at`, the column; `inner`
    are the axes behind `column`, `rows` the other axes of the window.
    """

    block: analysis.Block
    output: analysis.Block
    position: int
    tap: Var
    stride: int
    dilation: int
    at: Var
    term: Expr
    threads: bool

    @property
    def axes(self) -> tuple[Var, ...]:
        """The axes of the reduction's result."""
        return tuple(self.block.spatial)

    @property
    def column(self) -> Var:
        """The axis along which the windows of a row of the output lie."""
        return self.axes[self.position]

    @property
    def outer(self) -> tuple[Var, ...]:
        """The axes that number the rows of the output."""
        return self.axes[: self.position]

    @property
    def inner(self) -> tuple[Var, ...]:
        """The axes of a column, its channels."""
        return self.axes[self.position + 1 :]

    @property
    def rows(self) -> Mapping[Var, int]:
        """The window's axes besides `tap`."""
        return {v: n for v, n in self.block.reduction.items() if not v.same_as(self.tap)}

    @property
    def taps(self) -> int:
        """The columns of a window."""
        return self.block.reduction[self.tap]

    @property
    def columns(self) -> int:
        """The columns that a row of the output reads, padding included."""
        last = self.stride * (self.block.spatial[self.column] - 1)
        return last + self.dilation * (self.taps - 1) + 1

    @property
    def channels(self) -> int:
        """The elements of a column."""
        return prod(self.block.spatial[axis] for axis in self.inner)

    @property
    def dtype(self) -> str:
        """The type in which is reduced."""
        own = str(self.block.body.buffer.dtype)
        return _WIDER.get(own, own)

    @property
    def itemsize(self) -> int:
        """The bytes of an element of that type."""
        return self.target.vector_bits // 8 // self.target.lanes(self.dtype)

    @property
    def combine(self) -> Callable[[Expr, Expr], Expr]:
        """What makes one element of two."""
        return type(self.block.body.value)

    @property
    def neutral(self) -> Expr:
        """What changes nothing that it is combined with."""
        return _neutral(self.block.body.value)

    def places(self) -> Iterator[dict[Var, int]]:
        """The rows of a window."""
        names = list(self.rows)
        for place in product(*(range(extent) for extent in self.rows.values())):
            yield dict(zip(names, place, strict=True))

    def parts(self) -> list[tuple[int, int, Expr]]:
        """The columns in stretches, with the term as it is within each."""
        cuts = {0, self.columns}
        for node in access.comparisons(self.term):
            if access.uses(node, self.at):
                cuts.add(min(max(self._limit(node).at, 0), self.columns))
        ends = sorted(cuts)
        return [(a, b, self._within(a, b)) for a, b in pairwise(ends)]

    def _within(self, first: int, last: int) -> Expr:
        def decide(node: Any) -> Any:
            if not access.uses(node, self.at):
                return node
            limit = self._limit(node)
            return tirx.const((last <= limit.at) == limit.below, "bool")

        return access.decided(self.term, decide)

    def _limit(self, node: Any) -> access.Boundary:
        limit = access.boundary(node, self.at)
        assert limit is not None, "kernels with other guards are refused"
        return limit


def analyse(func: PrimFunc, target: Target) -> Windows | NotApplicable:
    """Find the windows of a kernel with one reduction."""
    raw = analysis.blocks(func)
    if not analysis.plain(raw) or strips.has_gaps(func):
        return NotApplicable("a block is not a single store under constant loops")
    if sum(1 for block in raw if block.reduction) != 1 or len(analysis.outputs(func, raw)) != 1:
        return NotApplicable("it does not hold one reduction and one output")
    staged, _ = transforms.stage(func)
    found = analysis.blocks(staged)
    windows = _of_blocks(found, target)
    if isinstance(windows, NotApplicable):
        return windows
    return replace(windows, func=func, threads=analysis.worth_threads(staged, target))


def _of_blocks(found: Sequence[analysis.Block], target: Target) -> Windows | NotApplicable:
    if len(found) != len(("reduction", "output")) or not found[0].reduction:
        return NotApplicable("something besides the reduction cannot be inlined")
    block, last = found
    if not in_place(block, last):
        return NotApplicable("its output has other axes than the reduction")
    if not isinstance(block.body.value, _COMBINED):
        return NotApplicable("it is not a maximum, minimum or sum")
    windows = _moving(block, last, target)
    return windows or NotApplicable("its reduction is not over windows with rows and columns")


def in_place(block: analysis.Block, output: analysis.Block) -> bool:
    """Whether the output reads each result of the reduction once, where it writes."""
    loads = [load for load in output.loads if load.source.same_as(block.writes[0])]
    axes, indices = list(output.spatial), list(output.body.indices)
    return (
        list(output.spatial.values()) == list(block.spatial.values())
        and all(_same(load.indices, axes) for load in loads)
        and bool(loads)
        and _same(indices, axes)
    )


def _same(indices: Sequence[Any], axes: Sequence[Any]) -> bool:
    return len(indices) == len(axes) and all(
        index.same_as(axis) for index, axis in zip(indices, axes, strict=True)
    )


def _moving(block: analysis.Block, output: analysis.Block, target: Target) -> Windows | None:
    pairs = [
        (position, tap)
        for position, axis in enumerate(block.spatial)
        for tap in block.reduction
        if any(_mixed(index, axis, tap) for load in block.loads for index in load.indices)
    ]
    if not pairs or prod(block.reduction.values()) > _MOST**2:
        return None
    position, tap = pairs[-1]
    column = list(block.spatial)[position]
    index = next(i for x in block.loads for i in x.indices if _mixed(i, column, tap))
    steps = [int(step) for step in sym.detect_linear_equation(index, [column, tap])[:2]]
    if min(steps) < 1:
        return None
    step = gcd(*steps)
    stride, dilation = (each // step for each in steps)
    at = tirx.Var("at", column.ty)
    moved = _moved(block.body.value.b, (column, tap), (stride, dilation), at)
    if moved is None:
        return None
    term = _from_infinity(moved, block.body.value)
    made = Windows(
        *(block.node, target, block, output, position, tap, stride, dilation, at, term), False
    )
    return made if _fits(made) else None


def _fits(windows: Windows) -> bool:
    """Whether rows are contiguous, the window small enough, and guards are of whole columns."""
    block, inner = windows.block, windows.inner
    if windows.taps > _MOST or prod(windows.rows.values()) > _MOST:
        return False
    moving = [node for node in access.comparisons(windows.term) if access.uses(node, windows.at)]
    if not all(access.boundary(node, windows.at) for node in moving):
        return False
    along = inner[-1] if inner else windows.at
    loads: list[Any] = []
    structural_walk(windows.term, (TensorLoad, loads.append))
    strides = [access.stride(load.indices, load.source, along) for load in loads]
    last = list(windows.output.spatial)[-1]
    guarded = windows.output.divisor(last) or (bool(inner) and block.divisor(along))
    return set(strides) <= {0, 1} and not guarded and not _divides(windows.term, windows.at)


def _divides(expr: Expr, var: Var) -> bool:
    """Whether a division is in the way of vectors over a variable."""
    found: list[Any] = []
    structural_walk(expr, (access.DIVISIONS, found.append))
    return any(access.uses(node, var) for node in found)


def _mixed(index: Expr, axis: Var, tap: Var) -> bool:
    """Whether an index is a sum of multiples of both."""
    if not (access.uses(index, axis) and access.uses(index, tap)):
        return False
    found = sym.detect_linear_equation(index, [axis, tap])
    return bool(found) and all(isinstance(part, prim.IntImm) for part in found[:2])


def _moved(term: Expr, axes: tuple[Var, Var], steps: tuple[int, int], at: Var) -> Expr | None:
    """A term as a function of the column alone; None if it depends on more of these axes."""

    def linear(expr: Expr) -> Expr:
        if not any(access.uses(expr, axis) for axis in axes):
            return expr
        found = sym.detect_linear_equation(expr, list(axes))
        if not found or not all(isinstance(part, prim.IntImm) for part in found[:2]):
            return expr
        times = int(found[0]) // steps[0]
        if [times * step for step in steps] != [int(part) for part in found[:2]]:
            return expr
        return access.simplify(at * times + found[2])

    def load(node: Any) -> Any:
        return tirx.BufferLoad(node.source, [linear(index) for index in node.indices])

    def compare(node: Any) -> Any:
        if not any(access.uses(node, axis) for axis in axes):
            return node
        return type(node)(linear(node.a - node.b), tirx.const(0, str(node.a.ty.dtype)))

    made = structural_map(term, [(TensorLoad, load), (access.COMPARISONS, compare)])
    return None if any(access.uses(made, axis) for axis in axes) else made


def _neutral(combined: Any) -> Expr:
    dtype = str(combined.ty.dtype)
    if isinstance(combined, prim.Add):
        return tirx.const(0, dtype)
    finite = (tirx.max_value if isinstance(combined, prim.Min) else tirx.min_value)(dtype)
    return statements.from_infinity(finite)


def _from_infinity(term: Expr, combined: Any) -> Expr:
    """The term with what TVM pads extremes with, the largest finite numbers, as infinite."""
    if isinstance(combined, prim.Add):
        return term

    def infinite(call: Any) -> Any:
        if not access.conditional(call):
            return call
        return tirx.if_then_else(*call.args[:2], statements.from_infinity(call.args[2]))

    return structural_map(term, (Call, infinite))
