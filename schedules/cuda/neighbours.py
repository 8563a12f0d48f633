"""Results of a product that lie side by side, as one thread stores them at once."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import tvm
from tvm import sym, tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_equal, structural_map, structural_walk

from hybridc.schedules.cuda import thread_vectors, tir
from hybridc.schedules.cuda.product_kernel import Axes, Product, substituted
from hybridc.schedules.loops import access, analysis

COUNT = 4  # sums of 16 bytes, which one access brings from shared memory
Expr = Any


@dataclass(frozen=True)
class Read:
    """A vector that is read into an array of the thread ahead: its tensor, and where."""

    array: Any
    source: Any
    indices: list[Expr]

    @property
    def registers(self) -> int:
        """Registers of the array."""
        return COUNT * analysis.bits(str(self.source.dtype)) // 32

    def is_of(self, source: Any, indices: list[Expr]) -> bool:
        """Whether it reads the same."""
        same = (structural_equal(*pair) for pair in zip(indices, self.indices, strict=True))
        return source.same_as(self.source) and all(same)


@dataclass(frozen=True)
class Neighbours:
    """The store of COUNT columns: of `whole` times as many, `lane` is each.

    What is computed of them is a vector too if `at_once`; a function that has none, such as erf, is
    called for each.
    """

    axis: Any
    whole: Any
    lane: Any
    indices: Sequence[Expr]
    value: Expr
    output: Any
    held: Any
    at_once: bool

    def ahead(self, of_rows: Collection[Any] | None, name: str) -> tuple["Neighbours", list[Read]]:
        """The same with what is read side by side in arrays of the thread, which are named so.

        If `of_rows` is given, only what none of these axes moves.
        """
        reads: list[Read] = []
        lane = tirx.Var("lane", self.lane.ty.dtype)  # of its own: loops have different variables

        def load(node: Any) -> Any:
            near = access.stride(node.indices, node.source, self.lane) == 1
            moves = any(access.uses(node, axis) for axis in of_rows or ())
            if not near or moves or node.source.scope() != "global":
                return node
            first = tirx.const(0, self.lane.ty.dtype)
            indices = [substituted(index, {self.lane: first}) for index in node.indices]
            read = next((read for read in reads if read.is_of(node.source, indices)), None)
            if read is None:
                dtype = str(node.source.dtype)
                array = tir.buffer(f"{name}_{len(reads)}", COUNT, dtype, "local")
                read = Read(array, node.source, indices)
                reads.append(read)
            return tirx.BufferLoad(read.array, [self.lane])

        value, *indices = (
            substituted(each, {self.lane: lane})
            for each in (structural_map(self.value, (TensorLoad, load)), *self.indices)
        )
        return replace(self, lane=lane, value=value, indices=indices), reads

    def copied(self, read: Read, axes: Mapping[Any, Expr]) -> Any:
        """A vector from memory to its array."""
        return _copied(read.array, read.source, self._at(read.indices, axes))

    def store(self, axes: Mapping[Any, Expr]) -> Any:
        """Vectors from the sums in `held` to the output; the last axis counts vectors."""
        indices = self._at(self.indices, axes)
        (value,) = self._at([self.value], axes)
        if self.at_once:
            return self._each(tirx.BufferStore(self.output, value, indices))
        return self._one_by_one(indices, value)

    def _at(self, values: Sequence[Expr], axes: Mapping[Any, Expr]) -> list[Expr]:
        """Expressions at an assignment of the axes, the last of which counts vectors."""
        places = {**axes, self.whole: axes[self.axis]}
        del places[self.axis]
        return [substituted(value, places) for value in values]

    def _one_by_one(self, indices: list[Expr], value: Expr) -> Any:
        """Each lane in registers, and a vector of results to the output."""
        result = tir.buffer("result", COUNT, str(self.output.dtype), "local")

        def element(i: Expr) -> Any:
            lane = i.astype(str(self.lane.ty.dtype))
            return tirx.BufferStore(result, substituted(value, {self.lane: lane}), [i])

        computed = tir.unrolled(COUNT, element, "lane")
        zero = {self.lane: tirx.const(0, self.lane.ty.dtype)}
        first = [substituted(index, zero) for index in indices]
        stored = _copied(result, self.output, first, back=True)
        return tir.allocated([result], tir.sequence([computed, stored]))

    def kept(self, parts: Any, first: Expr) -> Any:
        """The sums themselves to an array, from its element `first` on."""
        lane = self.lane.astype(str(first.ty.dtype))
        return self._each(
            tirx.BufferStore(parts, tirx.BufferLoad(self.held, [self.lane]), [first + lane])
        )

    @property
    def first(self) -> Expr:
        """Where the sums are put."""
        return tir.address(self.held, tir.number(0))

    def _each(self, store: Any) -> Any:
        zero, count = (tirx.const(number, self.lane.ty.dtype) for number in (0, COUNT))
        return tirx.For(self.lane, zero, count, tirx.ForKind.VECTORIZED, store)

    def axes(self, own: Axes) -> Axes:
        """The columns' axes as they count vectors."""
        *outer, (axis, extent) = own
        return (*outer, (axis, extent // COUNT))


def _copied(array: Any, source: Any, first: Sequence[Expr], back: bool = False) -> Any:
    """A vector from memory to an array of the thread, or back."""
    there = tirx.address_of(tirx.BufferLoad(source, list(first)))
    here = tir.address(array, tir.number(0))
    name = f"vector<{tir.c_type(str(source.dtype))}, {COUNT}>"
    return tir.call(name, there, here) if back else tir.call(name, here, there)


def neighbours(product: Product, total: str) -> Neighbours | None:
    """How neighbouring columns are stored at once; None where they are not side by side.

    What is read for them is side by side too, or one element for all.
    """
    own = product.right.own
    if not own or own[-1][1] % COUNT:
        return None
    axis = own[-1][0]
    whole, lane = (tirx.Var(name, axis.ty.dtype) for name in ("whole", "lane"))
    held = tir.buffer("total", COUNT, total, "local")
    every = (*product.batch, *product.left.own, *own)
    places = {var: var for var, _ in every} | {axis: whole * COUNT + lane}
    indices, value = product.store(places, tirx.BufferLoad(held, [lane]))
    zero, count = (tirx.const(number, axis.ty.dtype) for number in (0, COUNT))
    analyzer = sym.Analyzer()
    analyzer.bind(lane, tvm.ir.Range(zero, count))

    def simple(load: Any) -> Any:
        return tirx.BufferLoad(load.source, [*map(analyzer.simplify, load.indices)])

    value = structural_map(value, (TensorLoad, simple))
    indices = [analyzer.simplify(index) for index in indices]
    accesses: list[tuple[Any, Any]] = []
    structural_walk(value, (TensorLoad, lambda load: accesses.append((load.indices, load.source))))
    store = tirx.BufferStore(product.output, value, indices)
    at_once = thread_vectors.at_once(store, accesses, lane, COUNT)
    if not at_once and not thread_vectors.moved(store, accesses, lane, COUNT):
        return None
    return Neighbours(axis, whole, lane, indices, value, product.output, held, at_once)
