"""Kernels whose arguments are boxes within larger tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import s_tir, te, tirx
from tvm.ir.expr import TensorLoad, TensorRegion, Var
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc


@dataclass(frozen=True)
class Box:
    """Where an argument lies: the extents of the tensor that holds it, and where it begins."""

    extents: tuple[int, ...]
    begin: tuple[int, ...]


def movable(func: PrimFunc, index: int) -> bool:
    """Whether every use of an argument can be shifted: loads and stores by index, no addresses.

    A block that says nothing of what it reads and writes may count in flat addresses.
    """
    buffer = func.params[index]
    uses = _Uses(buffer)
    structural_walk(func.body, (Var, uses.mention))
    structural_walk(func.body, uses.callbacks())
    opaque: list[Any] = []

    def leaf(block: Any) -> None:
        inside, nested = _Uses(buffer), list[Any]()
        structural_walk(block.body, inside.callbacks())
        structural_walk(block.body, (s_tir.SBlock, nested.append))
        declared = any(region.source.same_as(buffer) for region in [*block.reads, *block.writes])
        if inside.accesses and not nested and not declared:
            opaque.append(block)

    structural_walk(func.body, (s_tir.SBlock, leaf))
    return uses.accesses + uses.regions == uses.mentions and not opaque


@dataclass
class _Uses:
    """Counts how often a buffer is named at all, in loads and stores, and in regions."""

    buffer: Any
    mentions: int = 0
    accesses: int = 0
    regions: int = 0

    def callbacks(self) -> list[Any]:
        """What to do with each kind of node."""
        return [
            (TensorLoad, self._load),
            (tirx.BufferStore, self._store),
            (TensorRegion, self._region),
        ]

    def mention(self, var: Any) -> None:
        """Count a variable."""
        self.mentions += var.same_as(self.buffer)

    def _load(self, load: Any) -> None:
        self.accesses += load.source.same_as(self.buffer)

    def _store(self, store: Any) -> None:
        self.accesses += store.buffer.same_as(self.buffer)

    def _region(self, region: Any) -> None:
        self.regions += region.source.same_as(self.buffer)


def moved(func: PrimFunc, boxes: Mapping[int, Box]) -> PrimFunc:
    """The kernel for arguments (by their index) that are boxes of larger tensors."""
    params = list(func.params)
    into: dict[Any, tuple[Any, Sequence[int]]] = {}
    for index, box in boxes.items():
        buffer = params[index]
        whole = tirx.decl_buffer(_like(buffer, box.extents), buffer.dtype, buffer.name)
        params[index] = whole
        into[buffer] = whole, box.begin

    def load(node: Any) -> Any:
        if node.source not in into:
            return node
        whole, begin = into[node.source]
        return tirx.BufferLoad(whole, _shifted(node.indices, begin))

    def store(node: Any) -> Any:
        if node.buffer not in into:
            return node
        whole, begin = into[node.buffer]
        return tirx.BufferStore(whole, node.value, _shifted(node.indices, begin))

    def region(node: Any) -> Any:
        if node.source not in into:
            return node
        whole, begin = into[node.source]
        starts = _shifted([bounds.min for bounds in node.region], begin)
        return tirx.BufferRegion(
            whole,
            [
                tvm.ir.Range.from_min_extent(start, bounds.extent)
                for start, bounds in zip(starts, node.region, strict=True)
            ],
        )

    callbacks = [(TensorLoad, load), (tirx.BufferStore, store), (TensorRegion, region)]
    body = structural_map(func.body, callbacks)
    return tirx.PrimFunc(params, body, func.ret_type, func.attrs, func.span)


def copy(extents: Sequence[int], dtype: str) -> PrimFunc:
    """A kernel that copies a tensor; not scheduled."""
    source = te.placeholder(extents, dtype, "source")
    copied = te.compute(extents, lambda *index: source[index], "copied")
    return te.create_prim_func([source, copied]).without_attr("global_symbol")


def _like(buffer: Any, extents: Sequence[int]) -> list[Any]:
    """Extents in the integer type in which the kernel counts."""
    return [
        tirx.const(extent, str(old.ty.dtype))
        for extent, old in zip(extents, buffer.shape, strict=True)
    ]


def _shifted(indices: Sequence[Any], begin: Sequence[int]) -> list[Any]:
    return [
        index + offset if offset else index for index, offset in zip(indices, begin, strict=True)
    ]
