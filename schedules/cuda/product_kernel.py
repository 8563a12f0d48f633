"""Kernels that multiply two tensors, as a GPU's rules see them: batch, rows, columns and depth.

What feeds the product is inlined into it, whatever it is: a pad, a cast, a transpose, a gather.
So a convolution is a product of gathered pixels and weights (implicit GEMM), and what is behind
the product is one expression of its result.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import Any

from tvm import tirx
from tvm.error import InternalError
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm.s_tir import ScheduleError
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Match, NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.loops import access, analysis, transforms
from hybridc.schedules.loops.analysis import Block

Axes = tuple[tuple[Any, int], ...]  # variables with their extents, outermost first
Expr = Any
# Types whose casts to wider ones a product does without.
_NARROWED = frozenset({"float16", "bfloat16", "float32", "int8", "uint8"})


@dataclass(frozen=True)
class Operand:
    """One side of a product: the element's expression over the axes, and its own axes.

    `dtype` is what it is multiplied as.
    """

    value: Expr
    own: Axes
    dtype: str

    @property
    def extent(self) -> int:
        """Rows of the left side, columns of the right."""
        return prod(extent for _, extent in self.own)


@dataclass(frozen=True)
class Product(Match):
    """`out[f(batch, rows, columns)] = epilogue(sum over depth of left * right)`.

    `store` gives the output's indices and value from an assignment of the axes and the sum; `sums`
    is the type that is added up in.
    """

    left: Operand
    right: Operand
    batch: Axes
    depth: Axes
    output: Any
    sums: str
    store: Callable[[Mapping[Any, Expr], Expr], tuple[list[Expr], Expr]]

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Batch, rows, columns, depth."""
        counts = (prod(extent for _, extent in axes) for axes in (self.batch, self.depth))
        batch, depth = counts
        return batch, self.left.extent, self.right.extent, depth

    @property
    def dtype(self) -> str:
        """What is multiplied: one type, or `uint8 by int8`."""
        left, right = self.left.dtype, self.right.dtype
        return left if left == right else f"{left} by {right}"


def analyse(func: PrimFunc, target: Target) -> Product | NotApplicable:
    """Find the product of a kernel, with all that feeds it inlined."""
    if not analysis.plain(analysis.blocks(func)):
        return NotApplicable("a block is not a single store under constant loops")
    merged = _merged(func)
    if isinstance(merged, NotApplicable):
        return merged
    found = analysis.blocks(merged)
    product, behind = found[0], found[1:]
    divided = factors_of(product)
    if isinstance(divided, NotApplicable):
        return divided
    left, right, batch = divided
    store = store_of(product, behind)
    if isinstance(store, NotApplicable):
        return store
    written = (behind[0] if behind else product).writes[0]
    depth = tuple(product.reduction.items())
    sums = str(product.writes[0].dtype)
    return Product(merged, target, left, right, batch, depth, written, sums, store)


def factors_of(product: Block) -> tuple[Operand, Operand, Axes] | NotApplicable:
    """Both sides of a block that sums up products, and the axes of both."""
    sides = _sides(product)
    if sides is None:
        return NotApplicable("its reduction is not a sum of products")
    return _split(product, sides)


def store_of(product: Block, behind: Sequence[Block]) -> "Store | NotApplicable":
    """Where results go, by way of the block behind where there is one."""
    return _store_behind(product, behind[0]) if behind else _own_store(product)


def _merged(func: PrimFunc) -> PrimFunc | NotApplicable:
    """The kernel as its product, and at most one block behind it."""
    schedule = transforms.new_schedule(func)
    reductions = [block for block in transforms.blocks(schedule) if block.reduction]
    if len(reductions) != 1:
        return NotApplicable(f"it holds {len(reductions)} reductions, not one")
    return keeping(func, {reductions[0].name})


def keeping(func: PrimFunc, names: Collection[str]) -> PrimFunc | NotApplicable:
    """The kernel with all blocks inlined but for those of these names, and its one output."""
    schedule = transforms.new_schedule(func)
    outputs = {block.name for block in analysis.outputs(func, transforms.blocks(schedule))}
    if len(outputs) != 1:
        return NotApplicable("it has several outputs")
    kept = outputs | set(names)
    for name in reversed([block.name for block in transforms.blocks(schedule)]):
        if name in kept:
            continue
        try:
            schedule.compute_inline(name)
        except (ScheduleError, InternalError):
            return NotApplicable(f"block {name} cannot be inlined")
    merged = transforms.with_own_names(schedule.mod["main"])
    if len(analysis.blocks(merged)) > len(kept):
        return NotApplicable("it does not come down to a product and what is behind it")
    return merged


def _sides(product: Block) -> tuple[Expr, Expr] | None:
    """The two factors of `out += a * b`, without the casts that only widen them."""
    value = product.body.value
    if not isinstance(value, prim.Add):
        return None
    for total, term in ((value.a, value.b), (value.b, value.a)):
        own = isinstance(total, TensorLoad) and total.source.same_as(product.writes[0])
        factors = _unwidened(term) if own else None
        if isinstance(factors, prim.Mul):
            return _unwidened(factors.a), _unwidened(factors.b)
    return None


def _unwidened(value: Expr) -> Expr:
    """What is cast from a narrow float to a wider one, or from a byte to an integer."""
    while isinstance(value, prim.Cast) and _bits(value.value) < _bits(value):
        narrow, wide = str(value.value.ty.dtype), str(value.ty.dtype)
        if ("float" in narrow) != ("float" in wide) or narrow not in _NARROWED:
            break
        value = value.value
    return value


def _bits(value: Expr) -> int:
    return int("".join(c for c in str(value.ty.dtype) if c.isdigit()) or 1)


def _split(
    product: Block, sides: tuple[Expr, Expr]
) -> tuple[Operand, Operand, Axes] | NotApplicable:
    """Rows are the axes of the left side alone, columns of the right, batch of both."""
    left, right = sides
    for axis in product.reduction:
        if not all(access.uses(side, axis) for side in sides):
            return NotApplicable("an axis that it sums over is not in both factors")
    kinds: dict[tuple[bool, bool], list[tuple[Any, int]]] = {}
    for axis, extent in product.spatial.items():
        used = (access.uses(left, axis), access.uses(right, axis))
        # What neither side uses is of extent 1, or else a copy: rows do for it.
        kinds.setdefault((True, False) if used == (False, False) else used, []).append(
            (axis, extent)
        )
    rows, columns, batch = (
        tuple(kinds.get(key, ())) for key in ((True, False), (False, True), (True, True))
    )
    left_type, right_type = (str(side.ty.dtype) for side in sides)
    return Operand(left, rows, left_type), Operand(right, columns, right_type), batch


Store = Callable[[Mapping[Any, Expr], Expr], tuple[list[Expr], Expr]]


def _own_store(product: Block) -> Store:
    store = product.body
    dtype = str(store.buffer.dtype)

    def made(axes: Mapping[Any, Expr], total: Expr) -> tuple[list[Expr], Expr]:
        return [substituted(index, axes) for index in store.indices], total.astype(dtype)

    return made


def _store_behind(product: Block, behind: Block) -> Store | NotApplicable:
    """What the block behind the product makes of it, in terms of the product's axes."""
    loads = [load for load in behind.loads if load.source.same_as(product.writes[0])]
    if not loads or any(
        not all(a.same_as(b) or str(a) == str(b) for a, b in zip(x.indices, y.indices, strict=True))
        for x, y in pairwise(loads)
    ):
        return NotApplicable("what is behind it reads its result at several places")
    inverse = _inverse(behind, list(loads[0].indices))
    if inverse is None:
        return NotApplicable("what is behind it does not read each of its results once")
    indices = list(product.body.indices)
    dtype = str(product.writes[0].dtype)
    source = product.writes[0]

    def made(axes: Mapping[Any, Expr], total: Expr) -> tuple[list[Expr], Expr]:
        place = inverse([substituted(index, axes) for index in indices])
        rounded = total.astype(dtype)
        value = structural_map(
            behind.body.value,
            (TensorLoad, lambda load: rounded if load.source.same_as(source) else load),
        )
        stored = behind.body.indices
        return [substituted(i, place) for i in stored], substituted(value, place)

    return made


def _inverse(
    behind: Block, indices: list[Expr]
) -> Callable[[list[Expr]], Mapping[Any, Expr]] | None:
    """From the indices at which a block reads the product to the block's own axes."""
    axes = list(behind.spatial)
    plain = {i: axis for i, index in enumerate(indices) for axis in axes if axis.same_as(index)}
    wide = [axis for axis, extent in behind.spatial.items() if extent > 1]
    if all(any(axis.same_as(known) for known in plain.values()) for axis in wide):
        zero = {axis: tirx.const(0, axis.ty.dtype) for axis in axes}
        return lambda place: zero | {axis: place[i] for i, axis in plain.items()}
    try:
        there = tirx.IndexMap(axes, indices, None)
        back = there.inverse([behind.spatial[axis] for axis in axes])
    except Exception:  # TVM says in many ways that a map has no inverse
        return None
    return lambda place: dict(zip(axes, back.map_indices(place), strict=True))


def substituted(value: Expr, axes: Mapping[Any, Expr]) -> Expr:
    """An expression with its axes replaced."""

    def replaced(var: Any) -> Any:
        for axis, new in axes.items():
            if axis.same_as(var):
                return new
        return var

    return structural_map(value, (type(next(iter(axes))), replaced)) if axes else value
