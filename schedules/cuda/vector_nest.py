"""Elementwise loop nests as launches in which each thread has a vector of neighbours.

Vectors are what memory is read and written by; in between, elements are computed one by one in
registers, by any function and in any type.  A condition that is the same for all of a vector, such
as which input of a concatenation it comes from, is decided once, around reads and arithmetic.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.cuda import launch_loops, tir, ways
from hybridc.schedules.cuda.held_form import SIZES, WIDEST, same
from hybridc.schedules.cuda.product_kernel import substituted
from hybridc.schedules.cuda.ways import Choice, Way
from hybridc.schedules.loops import access
from hybridc.schedules.loops.analysis import Block

_WIDTHS = (16, 8, 4, 2)
Expr = Any


def widths(block: Block) -> tuple[int, ...]:
    """How many neighbours along the block's last axis a thread may have, 1 among them."""
    axis, extent = list(block.spatial.items())[-1]
    way = ways.of(block)
    lets: list[Any] = []
    structural_walk(block.body, (prim.Let, lets.append))
    if lets or way is None or block.store_stride(axis) != 1:
        return (1,)
    loads = way.loads
    steps = [block.stride(load, axis) for load in loads]
    if None in steps or any(_varies(condition, axis) for condition in way.conditions):
        return (1,)
    near = [(x.indices, x.source) for x, step in zip(loads, steps, strict=True) if step == 1]
    near.append((block.body.indices, block.body.buffer))
    most = WIDEST // max(SIZES.get(str(buffer.dtype), WIDEST) for _, buffer in near)
    divisor = way.divisor(axis)
    fitting = [
        n
        for n in _WIDTHS
        if n <= most
        and extent % n == 0
        and divisor % n == 0
        and all(access.aligned(indices, buffer, axis, n) for indices, buffer in near)
    ]
    return (1, *reversed(fitting))


def _varies(condition: Expr, axis: Any) -> bool:
    """Whether what a condition reads may decide otherwise for each element."""
    found: list[Any] = []
    structural_walk(condition, (TensorLoad, found.append))
    return any(access.uses(load, axis) for load in found)


def kernel(func: PrimFunc, blocks: Sequence[Block], threads: int, width: int) -> PrimFunc:
    """A launch for each block, of at most so many threads, with so many neighbours for each."""
    written = [block.body.buffer for block in blocks]
    own = [each for each in written if not any(each.same_as(param) for param in func.params)]
    launches = [_launch(block, threads, width) for block in blocks]
    return func.with_body(tir.sequence([*map(tirx.AllocBuffer, own), *launches]))


def _launch(block: Block, threads: int, width: int) -> Any:
    axes = [*block.spatial.items()]
    last, extent = axes[-1]
    axes[-1] = (last, extent // width)
    count = prod(extent for _, extent in axes)
    of_block = min(threads, launch_loops.warps(count))
    number, thread = tir.variable("block"), tir.variable("thread")
    flat = number * of_block + thread
    places = tir.unflatten(flat, axes)
    places[last] *= width
    made = _Vector(block, places, width)
    inside = [flat < count] if count % of_block else []
    body = tir.allocated(made.arrays, tir.when(inside, made.body))
    launched = [("blockIdx.x", number, -(-count // of_block)), ("threadIdx.x", thread, of_block)]
    return tir.launched(launched, body)


class _Vector:
    """What a thread does for its vector, whose first element is at `places`."""

    def __init__(self, block: Block, places: Mapping[Any, Expr], width: int) -> None:
        self.block, self.places, self.width = block, places, width
        self.axis, self.lane = list(block.spatial)[-1], tir.variable("lane")
        self.arrays: list[Any] = []
        store = block.body
        self.result = self._array("result", store.buffer)
        way = ways.of(block)
        assert way is not None, "widths allowed it"
        stored = self._copied(store.indices, store.buffer, self.result, back=True)
        self.body = tir.sequence([self._decided(way), stored])

    def _array(self, name: str, like: Any) -> Any:
        made = tir.buffer(f"{name}_{len(self.arrays)}", self.width, str(like.dtype), "local")
        self.arrays.append(made)
        return made

    def _decided(self, way: Way | Choice) -> Any:
        """The elements of a value, behind what decides between its ways."""
        if isinstance(way, Way):
            return self._computed(way.value)
        condition = substituted(way.condition, self.places)
        return tirx.IfThenElse(condition, self._decided(way.yes), self._decided(way.no))

    def _computed(self, value: Expr) -> Any:
        """All reads of vectors, then element by element."""
        held: list[tuple[Any, Any]] = []

        def load(node: Any) -> Any:
            if self.block.stride(node, self.axis) != 1:
                return node
            found = next((array for other, array in held if _alike(other, node)), None)
            if found is None:
                found = self._array("read", node.source)
                held.append((node, found))
            return tirx.BufferLoad(found, [self.lane])

        lanes = structural_map(value, (TensorLoad, load))
        return tir.sequence(
            [
                *(self._copied(node.indices, node.source, array) for node, array in held),
                tir.unrolled(self.width, lambda lane: self._element(lanes, lane), "lane"),
            ]
        )

    def _element(self, value: Expr, lane: Expr) -> Any:
        place = self.places[self.axis] + lane.astype(str(self.axis.ty.dtype))
        places = {**self.places, self.lane: lane, self.axis: place}
        return tirx.BufferStore(self.result, substituted(value, places), [lane])

    def _copied(self, indices: Sequence[Expr], source: Any, array: Any, back: bool = False) -> Any:
        """A vector from memory to an array of the thread, or back."""
        places = [substituted(index, self.places) for index in indices]
        there = tirx.address_of(tirx.BufferLoad(source, places))
        here = tir.address(array, tir.number(0))
        name = f"vector<{tir.c_type(str(source.dtype))}, {self.width}>"
        return tir.call(name, there, here) if back else tir.call(name, here, there)


def _alike(one: Any, other: Any) -> bool:
    return bool(one.source.same_as(other.source)) and same(one.indices, other.indices)
