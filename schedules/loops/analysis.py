"""What the schedule rules ask of a kernel: its blocks, how they read memory, which lanes fit."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from tvm import s_tir, sym, tirx
from tvm.ir.expr import Call, TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_visit, structural_walk

from hybridc.compiler import strips
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.target import Target
from hybridc.schedules.loops import access

Var = Any  # tvm.ir.expr.Var

# Between the kernels of a model the pool's threads are still spinning: a start and a join take
# 1 µs (Zen 4, 2 threads: a copy of 64 KiB in 1.15 µs alone, in 1.6 µs together), 3,600 cycles.  A
# second thread saves half of the work, so work has to be twice that before it pays, and some more
# for threads that fell asleep.
PARALLEL_CYCLES = 10_000
# What a core moves in one cycle to and from the second level of its caches, and beyond it.
_L2_BYTES_PER_CYCLE = 32
_BYTES_PER_CYCLE = 8
# A call of the mathematics library, or of its polynomial, counted in plain operations.
_CALL_OPERATIONS = 15

_ARITHMETIC = (prim.Add, prim.Sub, prim.Mul, prim.Div, prim.Max, prim.Min, prim.Select, prim.Cast)
# Division has about a quarter of the throughput of the other operations.
_DIVISION_OPERATIONS = 4


@dataclass(frozen=True)
class Block:
    """One block of a kernel: `write[spatial] = f(loads)`, perhaps reduced over `reduction`.

    `spatial` and `reduction` map the block's variables to their extents, outermost first.  `nested`
    says that each has a loop of its own, `bound` that not all of them are constants.
    """

    name: str
    node: Any
    body: Any
    spatial: Mapping[Var, int]
    reduction: Mapping[Var, int]
    nested: bool
    bound: bool = True

    @cached_property
    def plain(self) -> bool:
        """Whether the block is one store under a loop of constant extent for each axis."""
        kinds = (tirx.IterVar.DataPar, tirx.IterVar.CommReduce)
        known = all(int(axis.iter_type) in kinds for axis in self.node.iter_vars)
        known = known and self.nested and all(extent > 0 for extent in self.axes.values())
        return known and isinstance(self.body, tirx.BufferStore) and bool(self.axes)

    @property
    def single(self) -> bool:
        """Whether it computes one number, under no loop; TVM gives it an axis of extent 1."""
        return not self.bound and self.iterations == 1 and isinstance(self.body, tirx.BufferStore)

    @property
    def axes(self) -> dict[Var, int]:
        """All variables with their extents."""
        return {**self.spatial, **self.reduction}

    @property
    def iterations(self) -> int:
        """How often the body runs."""
        return prod(self.axes.values())

    @property
    def writes(self) -> tuple[Any, ...]:
        """The buffers that the block writes."""
        return tuple(region.source for region in self.node.writes)

    @cached_property
    def loads(self) -> tuple[Any, ...]:
        """The loads of the body, but for those of what the block itself writes."""
        found: list[Any] = []
        structural_walk(self.body, (TensorLoad, found.append))
        return tuple(x for x in found if not any(x.source.same_as(w) for w in self.writes))

    @cached_property
    def operations(self) -> int:
        """Arithmetic operations for one element; index arithmetic does not count."""
        return _operations(self.body)

    @cached_property
    def widest(self) -> str:
        """The type of the widest element that the block computes with; indices do not count."""
        types = [str(x.ty.dtype) for x in _operands(self.body)]
        types += [str(w.dtype) for w in self.writes]
        if isinstance(self.body, tirx.BufferStore):  # collapsed blocks name no regions
            types.append(str(self.body.buffer.dtype))
        return max(types, key=bits)

    def stride(self, load: Any, var: Var) -> int | None:
        """How far apart in `load`'s buffer two neighbouring values of `var` read; None: varies."""
        return access.stride(load.indices, load.source, var)

    def store_stride(self, var: Var) -> int | None:
        """How far apart in the written buffer two neighbouring values of `var` store."""
        store = self.body
        return access.stride(store.indices, store.buffer, var)

    def divisor(self, var: Var) -> int:
        """What the lanes over `var` must divide, lest conditions or indices change within a vector.

        0 where nothing restricts them, 1 where only scalar code will do.
        """
        return access.lane_divisor(self.body, var)


def blocks(func: PrimFunc) -> tuple[Block, ...]:
    """The blocks under the root block, in the order in which they run."""
    found: list[Block] = []

    def visit(realize: Any, visitor: Any) -> None:
        if realize.same_as(func.body):
            visitor.default_visit(realize)
        else:
            found.append(describe(realize.block, realize.iter_values))

    structural_visit(func.body, (s_tir.SBlockRealize, visit))
    return tuple(found)


def describe(node: Any, bound: Iterable[Any] = ()) -> Block:
    """What the rules want to know of one block whose axes are `bound` to these values."""
    spatial: dict[Var, int] = {}
    reduction: dict[Var, int] = {}
    analyzer = sym.Analyzer()
    for axis in node.iter_vars:
        extent = axis.dom.extent
        # A symbolic extent has no value; -1 keeps the block from being plain.
        value = int(extent) if isinstance(extent, prim.IntImm) else -1
        (reduction if int(axis.iter_type) == tirx.IterVar.CommReduce else spatial)[axis.var] = value
        analyzer.bind(axis.var, axis.dom)
    # Reshapes leave divisions that the extents make void.
    body = structural_map(node.body, (access.DIVISIONS, analyzer.simplify))
    values = list(bound)
    nested = bool(values) and all(isinstance(value, tirx.Var) for value in values)
    constant = bool(values) and all(isinstance(value, prim.IntImm) for value in values)
    return Block(str(node.name_hint), node, body, spatial, reduction, nested, not constant)


def plain(found: tuple[Block, ...]) -> bool:
    """Whether there are blocks and all of them are plain."""
    return bool(found) and all(block.plain for block in found)


def outputs(func: PrimFunc, found: tuple[Block, ...]) -> tuple[Block, ...]:
    """The blocks that write the function's own buffers."""
    return tuple(b for b in found if any(w.same_as(p) for w in b.writes for p in func.params))


def readers(block: Block, found: tuple[Block, ...]) -> tuple[Block, ...]:
    """The blocks that read what `block` writes, one entry for each load."""
    return tuple(
        other
        for other in found
        if other.name != block.name
        for load in other.loads
        if any(load.source.same_as(w) for w in block.writes)
    )


def cycles(func: PrimFunc, target: Target) -> float:
    """An estimate of the kernel's time on one core: bytes moved, and operations in vectors."""
    moved = sum(_bytes(param) for param in strips.buffers_of(func))
    rate = _L2_BYTES_PER_CYCLE if moved <= target.l2 else _BYTES_PER_CYCLE
    return moved / rate + sum(block_cycles(block, target) for block in blocks(func))


def block_cycles(block: Block, target: Target) -> float:
    """An estimate of one block's time on one core: its operations in vectors, at least a load."""
    return block.iterations * max(1, block.operations) / target.lanes(block.widest)


def worth_threads(func: PrimFunc, target: Target) -> bool:
    """Whether the kernel is long enough to wake other threads."""
    return target.threads > 1 and cycles(func, target) >= PARALLEL_CYCLES


def best_lanes(extent: int, divisor: int, native: int) -> int:
    """Lanes for an axis: a whole register, or the most below it that divide `divisor`.

    0, as a divisor, restricts nothing.  The extent need not be a multiple of them: the last
    vector may be narrower.
    """
    widest = min(extent, native)
    return max(d for d in range(1, widest + 1) if divisor % d == 0)


def lane_choices(extent: int, divisor: int, native: int) -> tuple[int, ...]:
    """The lanes that a tuner may try on an axis, `best_lanes` among them."""
    wanted = (native // 2, native, 2 * native, 4 * native)
    return tuple(sorted({best_lanes(extent, divisor, max(1, width)) for width in wanted}))


def collapsible(block: Block, axes: tuple[Var, ...]) -> tuple[Var, ...]:
    """The longest run of trailing `axes` over which every access is one contiguous stretch.

    Fused, such axes index memory without a division; a buffer that none of them indexes counts
    as contiguous too.
    """
    extents = block.axes
    group = list(axes[-1:])
    for axis in reversed(axes[:-1]):
        inner = group[0]
        for indices, buffer in _accesses(block):
            outer_stride, inner_stride = (access.stride(indices, buffer, v) for v in (axis, inner))
            if outer_stride is None or inner_stride is None:
                return tuple(group)
            if outer_stride != inner_stride * extents[inner]:
                return tuple(group)
        if block.divisor(axis) or block.divisor(inner):
            return tuple(group)
        group.insert(0, axis)
    return tuple(group)


def _accesses(block: Block) -> Iterator[tuple[Any, Any]]:
    for load in block.loads:
        yield load.indices, load.source
    yield block.body.indices, block.body.buffer


def _bytes(param: Any) -> int:
    shape = getattr(param, "shape", ())
    if not all(isinstance(extent, prim.IntImm) for extent in shape):
        return 0
    return prod(int(extent) for extent in shape) * bits(str(param.dtype)) // 8


def bits(dtype: str) -> int:
    """Bits of an element of a type; 8 of a truth value."""
    return int("".join(c for c in dtype if c.isdigit()) or 8)


def _operands(body: Any) -> list[Any]:
    """The loads of values, without those inside the indices of other loads."""
    found: list[Any] = []
    structural_visit(body, (TensorLoad, lambda load, _: found.append(load)))
    return found


def _operations(body: Any) -> int:
    count = 0

    def arithmetic(node: Any, visitor: Any) -> None:
        nonlocal count
        count += _DIVISION_OPERATIONS if isinstance(node, prim.Div) else 1
        visitor.default_visit(node)

    def call(node: Any, visitor: Any) -> None:
        nonlocal count
        if not access.conditional(node):
            count += _CALL_OPERATIONS
        visitor.default_visit(node)

    def load(_node: Any, _visitor: Any) -> None:
        """Stop here: index arithmetic is not counted."""

    value = body.value if isinstance(body, tirx.BufferStore) else body
    structural_visit(value, [(TensorLoad, load), (Call, call), (_ARITHMETIC, arithmetic)])
    return count
