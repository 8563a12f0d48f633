"""Any loop nest as launches on a GPU: loops whose turns stand alone over threads, the rest serial.

The nest is lowered to plain loops first.  Each of its outermost statements is a launch.  Of the
loops around a statement those go to threads whose turns touch elements of their own alone: of every
array that is written within, all accesses have the loop's variable, by itself, in one and the same
dimension.  Whatever cannot be shown to be so runs in one thread, in its order.
"""

from collections.abc import Iterator
from math import prod
from typing import Any

from tvm import tirx
from tvm.ir.expr import Call, TensorLoad
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.ir import memory
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.product_kernel import substituted

_PRIVATE = 1024  # bytes of a thread's own arrays, that the GPU has room for whatever runs
# What gets at an array without an access that is seen.
_HIDDEN = ("address_of", "tvm_access_ptr", "call_extern", "call_packed", "call_cpacked")


def kernel(func: PrimFunc, threads: int) -> PrimFunc:
    """The function as launches, of so many threads at most in a block."""
    kept, statements = _scope(memory.plain_loops(func).body)
    made: list[Any] = []
    for statement in statements:
        own, launch = _launch(statement, threads)
        kept += own
        made.append(launch)
    return func.with_body(tir.sequence([*map(tirx.AllocBuffer, kept), *made]))


def _scope(body: Any) -> tuple[list[Any], list[Any]]:
    """The arrays and the statements of a sequence."""
    parts = list(_flat(body))
    arrays = [each.buffer for each in parts if isinstance(each, tirx.AllocBuffer)]
    return arrays, [each for each in parts if not isinstance(each, tirx.AllocBuffer)]


def _flat(body: Any) -> Iterator[Any]:
    if isinstance(body, tirx.SeqStmt):
        for each in body.seq:
            yield from _flat(each)
    else:
        yield body


def _launch(statement: Any, threads: int) -> tuple[list[Any], Any]:
    """A statement as one launch, and the arrays that it needs of the GPU's memory."""
    spread, inner = _nest(statement)
    count = prod(extent for _, extent in spread)
    block, thread = tir.variable("block"), tir.variable("thread")
    of_block = min(threads, count)
    flat = block * of_block + thread
    inner, own = _arrays(inner, flat, count)
    axes = tir.unflatten(flat, spread)
    body = tir.when([flat < count] if count % of_block else [], substituted(inner, axes))
    blocks = ("blockIdx.x", block, -(-count // of_block))
    return own, tir.launched([blocks, ("threadIdx.x", thread, of_block)], body)


def _nest(statement: Any) -> tuple[list[tuple[Any, int]], Any]:
    """The loops around a statement that go to threads, and what each thread runs."""
    loops: list[Any] = []
    body = statement
    while isinstance(body, tirx.For) and _plain(body):
        loops.append(body)
        body = body.body
    accesses = _accesses(statement)
    spread = [loop for loop in loops if accesses is not None and _apart(loop.loop_var, accesses)]
    for loop in reversed(loops):
        if not any(loop.same_as(each) for each in spread):
            kind = tirx.ForKind.SERIAL
            body = tirx.For(loop.loop_var, loop.min, loop.extent, kind, body)
    return [(loop.loop_var, int(loop.extent)) for loop in spread], _serial(body)


def _plain(loop: Any) -> bool:
    """Whether a loop counts from 0 to a constant."""
    sizes = (loop.min, loop.extent)
    return all(isinstance(each, tirx.IntImm) for each in sizes) and int(loop.min) == 0 < loop.extent


def _accesses(statement: Any) -> dict[Any, list[Any]] | None:
    """The indices of all accesses to each array that is written; None where some are not seen.

    Arrays that are made within it are of one turn alone.
    """
    written: list[Any] = []
    own: list[Any] = []
    found: list[tuple[Any, Any]] = []
    hidden: list[Any] = []

    def store(node: Any) -> None:
        written.append(node.buffer)
        found.append((node.buffer, node.indices))

    def call(node: Any) -> None:
        name = str(getattr(node.op, "name", "")).rpartition(".")[2]
        if name in _HIDDEN or name.startswith("tvm_call"):
            hidden.append(node)

    structural_walk(
        statement,
        [
            (tirx.BufferStore, store),
            (TensorLoad, lambda node: found.append((node.source, node.indices))),
            (Call, call),
            (tirx.AllocBuffer, lambda node: own.append(node.buffer)),
        ],
    )
    if hidden:
        return None
    return {
        buffer: [indices for other, indices in found if other.same_as(buffer)]
        for buffer in dict.fromkeys(written)
        if not any(buffer.same_as(each) for each in own)
    }


def _apart(var: Any, accesses: dict[Any, list[Any]]) -> bool:
    """Whether no two turns of a loop touch the same element of an array that is written."""
    return all(
        any(all(indices[place].same_as(var) for indices in each) for place in range(len(each[0])))
        for each in accesses.values()
    )


def _serial(body: Any) -> Any:
    """A body whose loops run in their order in one thread."""
    kinds = (tirx.ForKind.PARALLEL, tirx.ForKind.VECTORIZED)

    def one(loop: Any) -> Any:
        if loop.kind not in kinds:
            return loop
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)

    return structural_map(body, (tirx.For, one))


def _arrays(body: Any, flat: Any, count: int) -> tuple[Any, list[Any]]:
    """A thread's own arrays: in its registers where they are small, else a part for each thread."""
    found: list[Any] = []
    structural_walk(body, (tirx.AllocBuffer, lambda node: found.append(node.buffer)))
    if not found:
        return body, []
    small = memory.bytes_of(found) <= _PRIVATE
    own = _Own(found, () if small else (flat,), () if small else (count,))
    return own.within(body), [] if small else own.made


class _Own:
    """Arrays of each thread; those in the GPU's memory have a first index that is the thread's."""

    def __init__(self, old: list[Any], first: tuple[Any, ...], size: tuple[int, ...]) -> None:
        scope = "global" if first else "local"
        self._old, self._first = old, first
        self.made = [
            tirx.decl_buffer([*size, *each.shape], each.dtype, each.name, scope=scope)
            for each in old
        ]

    def within(self, body: Any) -> Any:
        """A body with these arrays."""

        def load(node: Any) -> Any:
            made = self._of(node.source)
            return node if made is None else tirx.BufferLoad(made, [*self._first, *node.indices])

        def store(node: Any) -> Any:
            made, indices = self._of(node.buffer), [*self._first, *node.indices]
            return node if made is None else tirx.BufferStore(made, node.value, indices)

        body = structural_map(body, (tirx.BufferStore, store))
        body = structural_map(body, (TensorLoad, load))
        return structural_map(body, (tirx.AllocBuffer, self._allocate))

    def _allocate(self, node: Any) -> Any:
        # What is in the GPU's memory is there before the launch.
        made = self._of(node.buffer)
        return tirx.Evaluate(tir.number(0)) if self._first else tirx.AllocBuffer(made)

    def _of(self, buffer: Any) -> Any | None:
        pairs = zip(self._old, self.made, strict=True)
        return next((made for old, made in pairs if old.same_as(buffer)), None)
