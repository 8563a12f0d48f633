"""A recurrence as the rules for GPUs see it, and its statements with other axes and states."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Match
from hybridc.schedules.cuda.product_kernel import substituted

Expr = Any
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Steps(Match):
    """A recurrence: `[time, batch, hidden units in whole blocks]`, and its two parts.

    `begin` makes the first state, `step` a new one of the last; both are loops over the batch and
    the hidden units.
    """

    sizes: tuple[int, int, int]
    begin: Any
    step: Any

    @property
    def shared(self) -> int:
        """Bytes of shared memory: the state before a step and after it."""
        return 2 * self.sizes[2] * FLOAT

    @property
    def gates(self) -> int:
        """Sums for each hidden unit."""
        return int(self.func.params[0].shape[2])

    @property
    def hidden(self) -> int:
        """Hidden units, without those that fill the last block."""
        return int(self.func.params[1].shape[1])


@dataclass(frozen=True)
class State:
    """Where a recurrence keeps its state: what reads and writes a number by its flat place.

    Of `[which, image, unit]` the place is counted by `flat`.
    """

    buffer: Any
    flat: Callable[[Any], Expr]
    read: Callable[[Expr], Expr]
    write: Callable[[Expr, Expr], Any]

    def within(
        self, body: Any, axes: Mapping[Any, Expr], sums: tuple[Any, Any] = (None, None)
    ) -> Any:
        """A body with its axes replaced, this for its state, and new sums for old ones."""
        old, new = sums

        def load(node: Any) -> Any:
            if node.source.same_as(self.buffer):
                return self.read(self._place(node.indices))
            return tirx.BufferLoad(new, node.indices[1:2]) if node.source.same_as(old) else node

        def store(node: Any) -> Any:
            if node.buffer.same_as(self.buffer):
                return self.write(self._place(node.indices), node.value)
            if node.buffer.same_as(old):
                return tirx.BufferStore(new, node.value, node.indices[1:2])
            return node

        typed = {axis: tirx.Cast(str(axis.ty.dtype), value) for axis, value in axes.items()}
        stored = structural_map(substituted(body, typed), (tirx.BufferStore, store))
        return structural_map(stored, (TensorLoad, load))

    def _place(self, indices: Any) -> Expr:
        return tirx.Cast("int32", self.flat(indices))


def parts(block: Any) -> tuple[list[Any], list[Any]]:
    """The buffers of a block, and its statements."""
    body = _statements(block.body)
    made = [each.buffer for each in body if isinstance(each, tirx.AllocBuffer)]
    statements = [each for each in body if not isinstance(each, tirx.AllocBuffer)]
    return [*block.alloc_buffers, *made], statements


def of_block(blocks: Any) -> tuple[Any, Any, list[Any]]:
    """Of a step's loop over blocks: the loop over sequences, their sums, and what it does.

    Sums are `[0, gate, unit]`; they begin, products are added, and a new state is made of them.
    """
    (total,), (images,) = parts(blocks.body.block)
    return images, total, _statements(images.body)


def _statements(body: Any) -> list[Any]:
    return list(body.seq) if isinstance(body, tirx.SeqStmt) else [body]


def of_lane(body: Any, lane: Expr) -> Any:
    """What vectors compute as one lane of them does."""

    def one(loop: Any) -> Any:
        if loop.kind != tirx.ForKind.VECTORIZED:
            return loop
        typed = tirx.Cast(str(loop.loop_var.ty.dtype), lane)
        return substituted(loop.body, {loop.loop_var: typed})

    return structural_map(body, (tirx.For, one))
