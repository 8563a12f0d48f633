"""Neighbouring axes as one throughout a kernel of several blocks.

Axes that stand side by side wherever one of them stands are one axis to everybody, and axes of one
element are none.  The last axis of a result may be too short for vectors, or no whole number of
them, while all that lie behind the reduced axis together are not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir.expr import TensorLoad, TensorRegion
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler import strips
from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.loops import access, analysis, statements, vector_loops

Var = Any  # tvm.ir.expr.Var
Buffer = Any  # tvm.tirx.Buffer
Statement = Any  # tvm.tirx.Stmt


@dataclass(frozen=True)
class Merged:
    """A kernel with fewer axes, and its former parameters by those that stand for them."""

    func: PrimFunc
    originals: Mapping[Buffer, Buffer]

    def restored(self, func: PrimFunc) -> PrimFunc:
        """What was made of the kernel, with the former parameters.

        Their elements are addressed by how far they are from the first: no argument can become a
        part of a larger index.
        """

        def flat(indices: Sequence[Any], new: Buffer) -> list[Any]:
            place = access.simplify(access.distance(indices, new))
            rank = len(self.originals[new].shape)
            return [*[statements.number_like(0, place)] * (rank - 1), place]

        def load(node: Any) -> Any:
            old = self.originals.get(node.source)
            return node if old is None else tirx.BufferLoad(old, flat(node.indices, node.source))

        def store(node: Any) -> Any:
            old = self.originals.get(node.buffer)
            if old is None:
                return node
            return tirx.BufferStore(old, node.value, flat(node.indices, node.buffer))

        def region(node: Any) -> Any:
            old = self.originals.get(node.source)
            return node if old is None else _region(old, [(0, size) for size in old.shape])

        changes = [(TensorLoad, load), (tirx.BufferStore, store), (TensorRegion, region)]
        body = structural_map(func.body, changes)
        params = [self.originals.get(param, param) for param in func.params]
        return tirx.PrimFunc(params, body, func.ret_type, func.attrs)


def merged(func: PrimFunc) -> Merged | None:
    """The kernel with as few axes as possible, None where none can go.

    Only of blocks whose every index is an axis of theirs, or 0.
    """
    root = func.body.block
    nests = list(root.body.seq) if isinstance(root.body, tirx.SeqStmt) else [root.body]
    classes = _Classes()
    if strips.has_gaps(func) or not all(classes.takes(nest) for nest in nests):
        return None
    if not classes.join():
        return None
    new = {}
    for buffer, dims in classes.dims.items():
        shape = [classes.size(head) for head in classes.heads(dims)] or [1]
        if len(shape) < len(buffer.shape):
            kind = buffer.shape[0].ty.dtype
            extents = [tirx.const(size, str(kind)) for size in shape]
            new[buffer] = tirx.decl_buffer(extents, str(buffer.dtype), buffer.name)
    body = statements.sequence([_rewritten(nest, classes, new) for nest in nests])
    allocated = [new.get(buffer, buffer) for buffer in root.alloc_buffers]
    whole = vector_loops.replaced(func.body, body, root.iter_vars, allocated=allocated)
    params = [new.get(param, param) for param in func.params]
    originals = {new[param]: param for param in func.params if param in new}
    return Merged(tirx.PrimFunc(params, whole, func.ret_type, func.attrs), originals)


@dataclass
class _Classes:
    """What the axes of blocks and the dimensions of buffers count: those that meet, the same.

    A class is a number, its extent and, but for the first of its kind, the `parents` that it is the
    same as.  `inner` tells which class always stands right behind another; `pinned` are those whose
    number itself is computed with.
    """

    extents: list[int] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    axes: dict[Var, int] = field(default_factory=dict)
    dims: dict[Buffer, list[int]] = field(default_factory=dict)
    orders: list[list[int]] = field(default_factory=list)
    pinned: list[int] = field(default_factory=list)
    inner: dict[int, int] = field(default_factory=dict)

    def takes(self, nest: Statement) -> bool:
        """Note a nest's axes and what they index; whether it is simple enough."""
        loops, realize = _parts(nest)
        if not loops or not isinstance(realize, s_tir.SBlockRealize):
            return False
        block = analysis.describe(realize.block, realize.iter_values)
        counters = [loop.loop_var for loop in loops]
        in_order = len(counters) == len(realize.iter_values) and all(
            value.same_as(var) for value, var in zip(realize.iter_values, counters, strict=True)
        )
        if not in_order or not block.plain or not access.simplify(realize.predicate):
            return False
        for axis, extent in block.axes.items():
            self.axes[axis] = self._new(extent)
        for group in (block.spatial, block.reduction):
            self.orders.append([self.axes[axis] for axis in group])
        if all(extent == 1 for extent in block.axes.values()):
            return False
        init = realize.block.init
        stores = [block.body] if init is None else [block.body, init]
        return all(isinstance(store, tirx.BufferStore) and self._notes(store) for store in stores)

    def join(self) -> bool:
        """Find the classes that always stand behind the same other; whether an axis can go."""
        before: dict[int, set[int | None]] = {}
        behind: dict[int, set[int | None]] = {}
        for numbers in [*self.orders, *self.dims.values()]:
            order = self._order(numbers)
            if len(set(order)) < len(order):
                return False
            for left, right in zip([None, *order], [*order, None], strict=True):
                if left is not None:
                    behind.setdefault(left, set()).add(right)
                if right is not None:
                    before.setdefault(right, set()).add(left)
        pinned = {self._root(number) for number in self.pinned}
        for left, followers in behind.items():
            (right, *others) = followers
            if right is None or others or before[right] != {left} or pinned & {left, right}:
                continue
            self.inner[left] = right
        return bool(self.inner) or 1 in self.extents

    def heads(self, numbers: Sequence[int]) -> list[int]:
        """The classes left of some axes or dimensions."""
        gone = set(self.inner.values())
        return [root for root in self._order(numbers) if root not in gone]

    def size(self, head: int) -> int:
        """How many elements a class counts together with those inside."""
        own = self.extents[head]
        return own * self.size(self.inner[head]) if head in self.inner else own

    def remains(self, number: int) -> bool:
        """Whether an axis or a dimension stays one."""
        return bool(self.heads([number]))

    def root(self, number: int) -> int:
        """What an axis or a dimension counts."""
        return self._root(number)

    def _order(self, numbers: Sequence[int]) -> list[int]:
        roots = [self._root(number) for number in numbers]
        return [root for root in roots if self.extents[root] > 1]

    def _notes(self, store: Any) -> bool:
        loads: list[Any] = []
        structural_walk(store.value, (TensorLoad, loads.append))
        value = structural_map(
            store.value, (TensorLoad, lambda load: tirx.const(0, str(load.ty.dtype)))
        )
        self.pinned += [number for axis, number in self.axes.items() if access.uses(value, axis)]
        used = [(load.indices, load.source) for load in loads]
        return all(self._meets(*each) for each in [*used, (store.indices, store.buffer)])

    def _meets(self, indices: Sequence[Any], buffer: Buffer) -> bool:
        if not all(isinstance(extent, prim.IntImm) for extent in buffer.shape):
            return False
        if buffer not in self.dims:
            self.dims[buffer] = [self._new(int(extent)) for extent in buffer.shape]
        for index, dim in zip(indices, self.dims[buffer], strict=True):
            if isinstance(index, prim.IntImm):
                if self.extents[dim] > 1:
                    return False
                continue
            if index not in self.axes or self.extents[self.axes[index]] != self.extents[dim]:
                return False
            self.parents[self._root(self.axes[index])] = self._root(dim)
        return True

    def _new(self, extent: int) -> int:
        self.extents.append(extent)
        self.parents.append(len(self.parents))
        return self.parents[-1]

    def _root(self, number: int) -> int:
        while self.parents[number] != number:
            number = self.parents[number]
        return number


def _parts(nest: Statement) -> tuple[list[Any], Any]:
    """The loops of a nest and what stands in the innermost."""
    loops: list[Any] = []
    while isinstance(nest, tirx.For):
        loops.append(nest)
        nest = nest.body
    return loops, nest


def _rewritten(nest: Statement, classes: _Classes, new: Mapping[Buffer, Buffer]) -> Statement:
    """A nest with a loop for each class that remains of its axes."""
    _, realize = _parts(nest)
    old = realize.block
    block = analysis.describe(old, realize.iter_values)
    kept, places = [], {}
    for axis in old.iter_vars:
        number = classes.axes[axis.var]
        places[axis.var] = statements.number_like(0, axis.var)
        if classes.remains(number):
            places[axis.var] = tirx.Var(axis.var.name, axis.var.ty)
            size = statements.number_like(classes.size(classes.root(number)), axis.var)
            domain = tvm.ir.Range(statements.number_like(0, axis.var), size)
            kept.append(tirx.IterVar(domain, places[axis.var], axis.iter_type))

    def indices(given: Sequence[Any], buffer: Buffer) -> list[Any]:
        numbers = zip(given, classes.dims[buffer], strict=True)
        found = [places[index] for index, dim in numbers if classes.remains(dim)]
        return found or [tirx.const(0, "int64")] * min(1, len(buffer.shape))

    def load(node: Any) -> Any:
        return tirx.BufferLoad(
            new.get(node.source, node.source), indices(node.indices, node.source)
        )

    def store(node: Any) -> Any:
        value = vector_loops.substitute(structural_map(node.value, (TensorLoad, load)), places)
        place = indices(node.indices, node.buffer)
        return tirx.BufferStore(new.get(node.buffer, node.buffer), value, place)

    reads = [_at(load(each)) for each in block.loads]
    body = store(block.body)
    writes = [_region(body.buffer, [(index, 1) for index in body.indices])]
    init = None if old.init is None else store(old.init)
    made = s_tir.SBlock(kept, reads, writes, old.name_hint, body, init)
    return _under_loops(made, realize.predicate)


def _under_loops(block: Any, predicate: Any) -> Statement:
    """A block in a loop for each of its axes."""
    counters = [tirx.Var(f"i{n}", axis.var.ty) for n, axis in enumerate(block.iter_vars)]
    made: Statement = s_tir.SBlockRealize(counters, predicate, block)
    for counter, axis in reversed(list(zip(counters, block.iter_vars, strict=True))):
        made = tirx.For(counter, axis.dom.min, axis.dom.extent, tirx.ForKind.SERIAL, made)
    return made


def _at(load: Any) -> Any:
    """The region of one element that a load reads."""
    return _region(load.source, [(index, 1) for index in load.indices])


def _region(buffer: Buffer, ranges: Sequence[tuple[Any, Any]]) -> Any:
    made = [tvm.ir.Range.from_min_extent(first, extent) for first, extent in ranges]
    return tirx.BufferRegion(buffer, made)
