"""Which axes of a kernel have open sizes, and which of these are independent of each other.

An axis of the kernel is an axis of its blocks and the dimensions of buffers that it indexes, all of
one open size: in `y[n, c] = relu(x[n, c])` the axis `n` is that of the block and the first of x and
y.  Where nothing is summed over it and every access stays on its own place, any part of it can be
computed alone: it is free.  So it is where a convolution's windows stand along it: part of what
they make is computed of part of what they read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tvm import s_tir, sym, tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_visit, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.strips.windows import Window, window_along

Expr = Any  # tvm.ir.Expr
Buffer = Any  # a variable of tvm.tirx.buffer.BufferType
Var = Any  # tvm.ir.expr.Var


@dataclass(frozen=True)
class Axis:
    """A free axis: its size, the block variables that run over it, and dimensions of buffers.

    Some of these are read by windows, which stand along the axis.
    """

    extent: Expr
    variables: tuple[Var, ...]
    dimensions: tuple[tuple[Buffer, int], ...]
    windows: tuple[Window, ...] = ()

    def of(self, buffer: Buffer) -> int | None:
        """The dimension of a buffer that lies along this axis."""
        found = next((d for b, d in self.dimensions if b.same_as(buffer)), None)
        window = self.window(buffer)
        return found if window is None else window.dimension

    def window(self, buffer: Buffer) -> Window | None:
        """The window by which a buffer is read along this axis; None if by single places."""
        return next((w for w in self.windows if w.buffer.same_as(buffer)), None)

    def runs(self, variable: Var) -> bool:
        """Whether a block variable runs over this axis."""
        return any(variable.same_as(v) for v in self.variables)


@dataclass(frozen=True)
class Nest:
    """One block of a kernel that no rule has scheduled: a store under a loop for each axis."""

    node: Any
    bound: tuple[Expr, ...]

    def accesses(self) -> Iterator[tuple[Buffer, Sequence[Expr]]]:
        """The buffers that it loads and stores, with the indices."""
        found: list[tuple[Buffer, Sequence[Expr]]] = []
        parts = [self.node.body] if self.node.init is None else [self.node.body, self.node.init]
        for part in parts:
            structural_walk(
                part,
                [
                    (TensorLoad, lambda load: found.append((load.source, load.indices))),
                    (tirx.BufferStore, lambda s: found.append((s.buffer, s.indices))),
                ],
            )
        return iter(found)


def has_open_sizes(func: PrimFunc) -> bool:
    """Whether a size of the kernel's arguments is known only as it is called."""
    return any(not _is_number(extent) for buffer in buffers_of(func) for extent in buffer.shape)


def buffers_of(func: PrimFunc) -> list[Buffer]:
    """The buffers among a kernel's parameters."""
    return [p for p in func.params if is_buffer(p)]


def is_buffer(param: Any) -> bool:
    """Whether a parameter is a buffer, and not a size."""
    return isinstance(param.ty, tirx.buffer.BufferType)


def nests(func: PrimFunc) -> tuple[Nest, ...] | None:
    """The blocks of a kernel; None if one is nested or under other loops than its own."""
    found: list[Nest] = []

    def visit(realize: Any, visitor: Any) -> None:
        if realize.same_as(func.body):
            visitor.default_visit(realize)
        else:
            found.append(Nest(realize.block, tuple(realize.iter_values)))

    structural_visit(func.body, (s_tir.SBlockRealize, visit))
    kinds = (tirx.IterVar.DataPar, tirx.IterVar.CommReduce)
    plain = bool(found) and all(
        isinstance(nest.node.body, tirx.BufferStore)
        and all(isinstance(value, tirx.Var) for value in nest.bound)
        and all(int(axis.iter_type) in kinds for axis in nest.node.iter_vars)
        for nest in found
    )
    return tuple(found) if plain else None


def free_axes(func: PrimFunc) -> tuple[Axis, ...]:
    """The open axes along which a kernel can be cut, in the order of its first output's."""
    found = nests(func)
    if found is None:
        return ()
    sets = _Sets()
    inputs = [b for b in buffers_of(func) if not any(b.same_as(out) for out in _written(found))]
    for nest in found:
        sets.add(nest, inputs)
    axes = [sets.axis(key) for key in sets.roots() if key not in sets.tied_roots()]
    outputs = _outputs(func, found)
    kept = [axis for axis in axes if all(axis.of(out) is not None for out in outputs)]
    kept = [axis for axis in kept if _once(axis) and _alone(axis, buffers_of(func))]
    return _together(sorted(kept, key=lambda axis: axis.of(outputs[0]) or 0), found, func)


def _once(axis: Axis) -> bool:
    """Whether no buffer lies along an axis twice."""
    return all(
        sum(b.same_as(buffer) for b, _ in axis.dimensions) == 1 for buffer, _ in axis.dimensions
    )


def _alone(axis: Axis, buffers: Sequence[Buffer]) -> bool:
    """Whether no size of another axis is computed of its size, as `past + n` is of n."""
    own = tirx.analysis.undefined_vars(axis.extent)
    others = [
        extent
        for buffer in buffers
        for dimension, extent in enumerate(buffer.shape)
        if dimension != axis.of(buffer) and not _is_number(extent)
    ]
    solved = [extent for extent in others if isinstance(extent, tirx.Var)]
    used = [var for extent in others for var in tirx.analysis.undefined_vars(extent)]
    unsolved = [var for var in used if not any(var.same_as(each) for each in solved)]
    return not any(var.same_as(each) for var in own for each in unsolved)


def _together(axes: Sequence[Axis], found: Sequence[Nest], func: PrimFunc) -> tuple[Axis, ...]:
    """The axes that one strip can be cut along; inner ones are left out first.

    A size that places or values are computed of must stay that of a dimension, or a strip does not
    know it.
    """
    kept = list(axes)
    for axis in reversed(axes):
        if _counts_with(axis.extent, found) and not _stays(axis.extent, kept, func):
            kept.remove(axis)
    return tuple(kept)


def _stays(extent: Expr, cut: Sequence[Axis], func: PrimFunc) -> bool:
    """Whether a dimension that is not cut has this size."""
    return any(
        size.same_as(extent) and not any(axis.of(buffer) == dimension for axis in cut)
        for buffer in buffers_of(func)
        for dimension, size in enumerate(buffer.shape)
    )


def _counts_with(extent: Expr, found: Sequence[Nest]) -> bool:
    """Whether a place or value is computed of a size; of a sum or product, its terms are given."""
    if not isinstance(extent, tirx.Var):
        return False
    stores = [part for nest in found for part in (nest.node.body, nest.node.init)]
    parts = [part for store in stores if store for part in (store.value, *store.indices)]
    used = [var for part in parts for var in tirx.analysis.undefined_vars(part)]
    return any(var.same_as(extent) for var in used)


def _outputs(func: PrimFunc, found: Sequence[Nest]) -> list[Buffer]:
    return [p for p in buffers_of(func) if any(p.same_as(w) for w in _written(found))]


def _written(found: Sequence[Nest]) -> list[Buffer]:
    return [nest.node.body.buffer for nest in found]


def _is_number(extent: Expr) -> bool:
    return isinstance(extent, int | tirx.IntImm)


_Key = tuple[int, int]  # a variable's handle and a dimension, or -1 for a block variable


@dataclass
class _Sets:
    """Union-find over dimensions of buffers and variables of blocks."""

    parent: dict[_Key, _Key] = field(default_factory=dict[_Key, _Key])
    things: dict[_Key, tuple[Any, Expr]] = field(default_factory=dict[_Key, Any])
    tied: set[_Key] = field(default_factory=set[_Key])
    windows: dict[_Key, tuple[_Key, int, int]] = field(default_factory=dict[_Key, Any])
    analyzer: Any = field(default_factory=sym.Analyzer)

    def add(self, nest: Nest, inputs: Sequence[Buffer]) -> None:
        """Join what one block accesses along the same axis, and tie what it accesses otherwise."""
        axes: Mapping[int, Any] = {hash(axis.var): axis for axis in nest.node.iter_vars}
        for axis in nest.node.iter_vars:
            if not _is_number(axis.dom.extent):
                key = self._key(axis.var, -1, axis.dom.extent)
                if int(axis.iter_type) == tirx.IterVar.CommReduce:
                    self.tied.add(key)
        for buffer, indices in nest.accesses():
            given = any(buffer.same_as(each) for each in inputs)
            for dimension, (index, extent) in enumerate(zip(indices, buffer.shape, strict=True)):
                if _is_number(extent):
                    continue
                key = self._key(buffer, dimension, extent)
                axis = axes.get(hash(index)) if isinstance(index, tirx.Var) else None
                if axis is not None and self.analyzer.can_prove_equal(axis.dom.extent, extent):
                    self._join(key, self._key(axis.var, -1, axis.dom.extent))
                else:
                    self._see(key, window_along(nest.node, index) if given else None)

    def _see(self, key: _Key, found: tuple[Any, int, int] | None) -> None:
        """Note that a dimension is read by windows, in one way only, or else tie it."""
        if found is None:
            self.tied.add(key)
            return
        axis, stride, reach = found
        along = self._key(axis.var, -1, axis.dom.extent)
        window = along, stride, reach
        if self.windows.setdefault(key, window) != window:
            self.tied |= {key, along}

    def roots(self) -> list[_Key]:
        """One key for each axis."""
        return list(dict.fromkeys(self._root(key) for key in self.things))

    def tied_roots(self) -> set[_Key]:
        """The axes that are not free; windows stand over dimensions that nothing else reads."""
        tied = {self._root(key) for key in self.tied}
        others = {self._root(key) for key in self.things if key[1] < 0}
        for key, (along, *_) in self.windows.items():
            if self._root(key) in tied | others:
                tied.add(self._root(along))
        return tied

    def axis(self, root: _Key) -> Axis:
        """What lies along one axis."""
        members = [(key, *self.things[key]) for key in self.things if self._root(key) == root]
        variables = tuple(thing for (_, d), thing, _ in members if d < 0)
        dimensions = tuple((thing, d) for (_, d), thing, _ in members if d >= 0)
        seen = [(key, found) for key, found in self.windows.items() if self._root(found[0]) == root]
        over = tuple(Window(self.things[key][0], key[1], *found[1:]) for key, found in seen)
        return Axis(self.things[root][1], variables, dimensions, over)

    def _key(self, thing: Any, dimension: int, extent: Expr) -> _Key:
        key = (hash(thing), dimension)
        if key not in self.things:
            self.things[key], self.parent[key] = (thing, extent), key
        return key

    def _root(self, key: _Key) -> _Key:
        while self.parent[key] != key:
            key = self.parent[key]
        return key

    def _join(self, one: _Key, other: _Key) -> None:
        self.parent[self._root(one)] = self._root(other)
