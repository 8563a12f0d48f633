"""A strip of a kernel: the same computation with fixed sizes along some of its axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm import s_tir, sym, tirx
from tvm.ir import Range
from tvm.ir.expr import TensorLoad, TensorRegion
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.strips.axes import Axis, Buffer, Expr, Nest, Var, buffers_of, nests

# The attribute of a strip: 1 where its buffers lie in the kernel's without gaps, else 0, and rows
# are further apart than the shapes say.
PART = "hybridc.part"
# The annotation of blocks that count an open axis only as the kernel has one.
LEADING = "hybridc.leading"
# Names are kept where a pass changes the type of a variable, and its identity with it.
_BASE = "strip.base"


@dataclass(frozen=True)
class Strip:
    """A kernel of fixed sizes along `axes`: `sizes[i]` places of `axes[i]`, from a base on.

    Buffers hold just these places.  Bases that the computation reads (a causal mask compares
    places) are variables; a last parameter, which nobody reads, has them as its shape.
    """

    func: PrimFunc
    axes: tuple[Axis, ...]
    sizes: tuple[int, ...]


def cut(
    func: PrimFunc, axes: Sequence[Axis], sizes: Sequence[int], dropped: Sequence[int] = ()
) -> Strip:
    """The strip of `sizes` places along free `axes`.

    Axes numbered in `dropped`, whose strips are single places, are no axes of its blocks any more.
    """
    bases = tuple(tirx.Var(f"{_BASE}{i}", "int64") for i in range(len(axes)))
    cutter = _Cutter(tuple(axes), tuple(sizes), bases, frozenset(dropped))
    found = nests(func) or ()
    extra = any(LEADING in nest.node.annotations for nest in found)
    for nest in found:
        cutter.note(nest, not extra or LEADING in nest.node.annotations)
    for buffer in buffers_of(func):
        cutter.shrink(buffer, frozenset())
    for buffer in func.body.block.alloc_buffers:
        cutter.shrink(buffer, cutter.dropped_in(buffer))
    body = cutter.statement(func.body)
    params = [cutter.buffer(param) for param in func.params]
    if used := [base for base in bases if _uses(body, base)]:
        params.append(tirx.decl_buffer(used, "float32", "places"))
    strip = tirx.PrimFunc(params, body, func.ret_type, func.attrs, func.span)
    strip = strip.with_attr(PART, int(all(cutter.leads(b) for b in buffers_of(func))))
    return Strip(strip, tuple(axes), tuple(sizes))


def _uses(body: Any, variable: Var) -> bool:
    found: list[Any] = []
    structural_walk(body, (tirx.Var, lambda v: found.append(v) if v.same_as(variable) else None))
    return bool(found)


def base_of(name: str) -> int | None:
    """Which axis a variable of this name gives the base of."""
    return int(name.removeprefix(_BASE)) if name.startswith(_BASE) else None


class _Cutter:
    """Writes a kernel's statements anew, with smaller buffers and loops."""

    def __init__(
        self,
        axes: tuple[Axis, ...],
        sizes: tuple[int, ...],
        bases: tuple[Var, ...],
        dropped: frozenset[int],
    ) -> None:
        self._axes, self._sizes, self._bases, self._dropped = axes, sizes, bases, dropped
        self._buffers: dict[int, Buffer] = {}
        self._originals: dict[int, Buffer] = {}
        self._lost: dict[int, frozenset[Any]] = {}
        self._dropping: list[Buffer] = []
        self._gone: set[int] = set()
        self._loops: dict[int, int] = {}
        self._places: dict[int, Expr] = {}
        self._analyzer = sym.Analyzer()

    def note(self, nest: Nest, drops: bool) -> None:
        """Remember which loops and block variables run over which axis, and which are dropped."""
        if drops:
            self._dropping.append(nest.node.body.buffer)
        for axis, loop in zip(nest.node.iter_vars, nest.bound, strict=True):
            for i, each in enumerate(self._axes):
                if each.runs(axis.var):
                    gone = drops and i in self._dropped
                    if gone:
                        self._gone.add(hash(axis.var))
                    self._loops[hash(loop)] = 0 if gone else self._sizes[i]
                    base = self._bases[i]
                    self._places[hash(axis.var)] = base if gone else axis.var + base

    def dropped_in(self, buffer: Buffer) -> frozenset[Any]:
        """The dimensions that one of the kernel's own buffers loses."""
        if not any(buffer.same_as(each) for each in self._dropping):
            return frozenset()
        return frozenset(self._axes[i].of(buffer) for i in self._dropped) - {None}

    def shrink(self, buffer: Buffer, gone: frozenset[Any]) -> None:
        """Declare a buffer of the strip's sizes, without the dimensions that are `gone`."""
        shape = list(buffer.shape)
        self._lost[hash(buffer)] = gone
        for axis, size in zip(self._axes, self._sizes, strict=True):
            dimension = axis.of(buffer)
            if dimension is not None:
                window = axis.window(buffer)
                extent = size if window is None else window.places(size)
                shape[dimension] = tirx.const(extent, "int64")
        scope = str(buffer.ty.storage_scope)
        shape = [extent for i, extent in enumerate(shape) if i not in gone]
        cut_buffer = tirx.decl_buffer(shape, buffer.dtype, buffer.name, scope=scope)
        self._buffers[hash(buffer)] = cut_buffer
        self._originals[hash(cut_buffer)] = buffer

    def buffer(self, buffer: Buffer) -> Buffer:
        """The strip's buffer in place of a kernel's; anything else is itself."""
        return self._buffers.get(hash(buffer), buffer)

    def leads(self, buffer: Buffer) -> bool:
        """Whether the strip of a buffer is one stretch of memory."""
        places = [axis.of(buffer) for axis in self._axes]
        last = max((p for p in places if p is not None), default=-1)
        shape = self._buffers[hash(buffer)].shape  # a parameter's, of which no axis is lost
        return all(isinstance(n, tirx.IntImm) and n.value == 1 for n in shape[: max(0, last)])

    def statement(self, node: Any) -> Any:
        """A statement of an unscheduled kernel."""
        match node:
            case tirx.SeqStmt():
                return tirx.SeqStmt([self.statement(each) for each in node.seq])
            case tirx.For():
                size = self._loops.get(hash(node.loop_var))
                if size == 0:
                    return self.statement(node.body)
                extent = node.extent if size is None else tirx.const(size, "int64")
                body = self.statement(node.body)
                return tirx.For(node.loop_var, node.min, extent, node.kind, body)
            case s_tir.SBlockRealize():
                values = [v for v in node.iter_values if self._loops.get(hash(v)) != 0]
                return s_tir.SBlockRealize(values, node.predicate, self._block(node.block))
            case tirx.BufferStore():
                indices = self._indices(node.buffer, node.indices)
                return tirx.BufferStore(self.buffer(node.buffer), self._value(node.value), indices)
            case _:
                return node

    def _block(self, block: Any) -> Any:
        return s_tir.SBlock(
            [self._iter_var(axis) for axis in block.iter_vars if hash(axis.var) not in self._gone],
            [self._region(region) for region in block.reads],
            [self._region(region) for region in block.writes],
            block.name_hint,
            self.statement(block.body),
            None if block.init is None else self.statement(block.init),
            [self.buffer(buffer) for buffer in block.alloc_buffers],
            None,
            block.annotations,
        )

    def _iter_var(self, axis: Any) -> Any:
        for each, size in zip(self._axes, self._sizes, strict=True):
            if each.runs(axis.var):
                domain = Range.from_min_extent(axis.dom.min, tirx.const(size, "int64"))
                return tirx.IterVar(domain, axis.var, axis.iter_type)
        return axis

    def _indices(self, buffer: Buffer, indices: Sequence[Expr]) -> list[Expr]:
        """Along the axes places of the strip, elsewhere what the kernel's places say."""
        own = {axis.of(buffer): i for i, axis in enumerate(self._axes)}
        return [
            self._within(index) if dimension in own else self._value(index)
            for dimension, index in enumerate(indices)
            if dimension not in self._lost.get(hash(buffer), ())
        ]

    def _within(self, place: Expr) -> Expr:
        """A place along an axis, which has but one where the block has lost its variable."""
        gone = isinstance(place, tirx.Var) and hash(place) in self._gone
        return tirx.const(0, "int64") if gone else place

    def _value(self, value: Expr) -> Expr:
        """An expression of the kernel's places, with loads from the strip's buffers."""

        def load(node: Any) -> Any:
            known = next((b for b in self._buffers.values() if b.same_as(node.source)), None)
            original = node.source if known is None else self._originals[hash(known)]
            own = {axis.of(original): i for i, axis in enumerate(self._axes)}
            indices = [
                self._without_bases(index) if dimension in own else index
                for dimension, index in enumerate(node.indices)
                if dimension not in self._lost.get(hash(original), ())
            ]
            return tirx.BufferLoad(node.source, indices)

        def place(var: Any) -> Any:
            return self._places.get(hash(var), self.buffer(var))

        return structural_map(value, [(TensorLoad, load), (tirx.Var, place)])

    def _without_bases(self, index: Expr) -> Expr:
        """A place of the strip, of which `_value` made one of the kernel."""
        none = {hash(base): tirx.const(0, "int64") for base in self._bases}
        inner = structural_map(index, (tirx.Var, lambda var: none.get(hash(var), var)))
        return self._analyzer.simplify(inner)

    def _region(self, region: Any) -> Any:
        lost = self._lost.get(hash(region.source), ())
        parts = [(i, part) for i, part in enumerate(region.region) if i not in lost]
        mins = self._indices(region.source, [part.min for part in region.region])
        ranges = [
            Range.from_min_extent(low, self._extent(region.source, i, part.extent))
            for low, (i, part) in zip(mins, parts, strict=True)
        ]
        return TensorRegion(self.buffer(region.source), ranges, region.ty)

    def _extent(self, buffer: Buffer, dimension: int, extent: Expr) -> Expr:
        """A block that reads all of a dimension along an axis reads all of the strip's."""
        for axis, size in zip(self._axes, self._sizes, strict=True):
            if axis.of(buffer) == dimension and not isinstance(extent, tirx.IntImm):
                return tirx.const(size, "int64")
        # What lies between several elements that are gathered has loads in it.
        return extent if isinstance(extent, tirx.IntImm) else self._value(extent)
