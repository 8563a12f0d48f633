"""Kernels of row stages whose rows lie in registers: each element is read once, 16 bytes at a time.

A warp, or some warps of a block, have a row.  A thread keeps some vectors of neighbours; sums and
maxima are combined within a warp by shuffles, and between warps through shared memory, behind one
barrier.  All of a row is under way before its first stage begins.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map

from hybridc.compiler.cuda.gpu import WARP
from hybridc.compiler.interfaces import PrimFunc
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.held_form import Form, Held, Stage

Expr = Any
# Independent sums of a thread, that additions need not wait for each other.
_CHAINS = 4


@dataclass(frozen=True)
class Team:
    """`threads` for each of the `rows` of a block; `ahead` says to read all at the beginning.

    Else what the last stage alone reads is read there, in its turn.
    """

    threads: int
    rows: int
    ahead: bool


def kernel(form: Form, team: Team) -> PrimFunc:
    """The kernel that computes rows so."""
    return _Writer(form, team).function()


class _Writer:
    """Writes one kernel."""

    def __init__(self, form: Form, team: Team) -> None:
        self.form, self.team = form, team
        self.width = form.width
        self.turns = form.turns(team.threads)
        self.block, self.thread = tir.variable("block"), tir.variable("thread")
        self.row = self.block * team.rows + self.thread // team.threads
        self.lane = self.thread % team.threads
        self.arrays: list[Any] = []
        size = self.turns * self.width
        self.held = {held: self._local("held", size, held.dtype) for held in form.held}
        self.kept = {
            stage.name: self._local("kept", 1 if stage.reduces else size, stage.dtype)
            for stage in form.stages
        }

    def function(self) -> PrimFunc:
        """The whole kernel."""
        last = self.form.output
        early = [x for x in self.form.held if self.team.ahead or not self.form.late(x)]
        late = [x for x in self.form.held if x not in early]
        body = [self._read(early)]
        body += [self._reduced(s) if s.reduces else self._stage(s) for s in self.form.stages]
        body += [self._output(late) if last.inner else self._result()]
        threads = self.team.threads * self.team.rows
        axes = [("blockIdx.x", self.block, self.form.rows // self.team.rows)]
        axes += [("threadIdx.x", self.thread, threads)]
        made = tir.allocated(self.arrays, tir.sequence(body))
        return self.form.func.with_body(tir.launched(axes, made))

    def _local(self, name: str, size: int, dtype: str, scope: str = "local") -> Any:
        made = tir.buffer(f"{name}_{len(self.arrays)}", size, dtype, scope)
        self.arrays.append(made)
        return made

    def _turns(self, body: Any) -> Any:
        """`body` of each turn, the first element of a vector and where it lies; none beyond."""
        each = self.team.threads * self.width
        whole = self.form.length % each == 0

        def turn(number: Expr) -> Any:
            first = (number * self.team.threads + self.lane) * self.width
            inside = [] if whole else [first < self.form.length]
            return tir.when(inside, body(first, number * self.width))

        return tir.unrolled(self.turns, turn, "turn")

    def _each(self, body: Any) -> Any:
        """`body` of each element of a thread and where it lies."""
        return self._turns(
            lambda first, at: tir.unrolled(
                self.width, lambda lane: body(first + lane, at + lane), "lane"
            )
        )

    def _read(self, which: list[Held]) -> Any:
        """What is read from memory, into registers."""
        reads = [self._turns(lambda first, at, x=x: self._vector(x, first, at)) for x in which]
        return tir.sequence(reads or [tirx.Evaluate(tir.number(0))])

    def _vector(self, held: Held, first: Expr, at: Expr) -> Any:
        def one(lane: Expr) -> Any:
            value = tirx.BufferLoad(held.source, self._at(held.indices, first + lane))
            return tirx.BufferStore(self.held[held], value, [at + lane])

        if not held.vector:
            return tir.unrolled(self.width, one, "lane")
        place = tirx.BufferLoad(held.source, self._at(held.indices, first))
        to = tir.address(self.held[held], at)
        return _copied(to, tirx.address_of(place), held.dtype, self.width)

    def _value(self, stage: Stage, element: Expr, at: Expr) -> Expr:
        """What a stage computes of an element, from registers."""

        def load(node: Any) -> Any:
            held = self.form.found(node)
            if isinstance(held, Held):
                return tirx.BufferLoad(self.held[held], [at])
            if isinstance(held, Stage):
                place = tir.number(0) if held.reduces else at
                return tirx.BufferLoad(self.kept[held.name], [place])
            return node

        value = structural_map(stage.value, (TensorLoad, load))
        return self.form.places.at(value, self.row, element)

    def _stage(self, stage: Stage) -> Any:
        kept = self.kept[stage.name]
        return self._each(lambda e, at: tirx.BufferStore(kept, self._value(stage, e, at), [at]))

    def _reduced(self, stage: Stage) -> Any:
        """A reduction: in each thread, then over those of the row."""
        chains = min(_CHAINS, self.width) if self.width > 1 else min(_CHAINS, self.turns)
        parts = self._local("parts", chains, stage.dtype)
        start = _start(stage)

        def add(element: Expr, at: Expr) -> Any:
            place = [at % chains]
            held = tirx.BufferLoad(parts, place)
            return tirx.BufferStore(parts, stage.kind(held, self._value(stage, element, at)), place)

        begin = tir.unrolled(chains, lambda i: tirx.BufferStore(parts, start, [i]), "part")
        zero = [tir.number(0)]
        others = [
            tirx.BufferStore(
                parts,
                stage.kind(tirx.BufferLoad(parts, zero), tirx.BufferLoad(parts, [tir.number(i)])),
                zero,
            )
            for i in range(1, chains)
        ]
        return tir.sequence([begin, self._each(add), *others, *self._met(stage, parts)])

    def _met(self, stage: Stage, parts: Any) -> list[Any]:
        """Its parts of all threads of a row, in each of them."""
        zero, kept = [tir.number(0)], self.kept[stage.name]
        mine = tirx.BufferLoad(parts, zero)
        made: list[Any] = []
        by = WARP // 2
        while by:
            other = tirx.call_extern(
                stage.dtype, f"hybridc_across<{tir.c_type(stage.dtype)}>", mine, tir.number(by)
            )
            made.append(tirx.BufferStore(parts, stage.kind(mine, other), zero))
            by //= 2
        warps = self.team.threads // WARP
        if warps == 1:
            return [*made, tirx.BufferStore(kept, mine, zero)]
        shared = self._local("warps", warps * self.team.rows, stage.dtype, "shared")
        mark = tirx.BufferStore(shared, mine, [self.thread // WARP])
        made += [tir.when([tirx.EQ(self.thread % WARP, tir.number(0))], mark), tir.barrier()]
        first = self.thread // self.team.threads * warps
        total: Any = None
        for warp in range(warps):
            part = tirx.BufferLoad(shared, [first + warp])
            total = part if total is None else stage.kind(total, part)
        return [*made, tirx.BufferStore(kept, total, zero)]

    def _output(self, late: list[Held]) -> Any:
        """The row's elements, a vector at a time."""
        output = self.form.output
        vector = self._local("vector", self.width, output.dtype)

        def turn(first: Expr, at: Expr) -> Any:
            reads = [self._vector(held, first, at) for held in late]

            def one(lane: Expr) -> Any:
                value = self._value(output, first + lane, at + lane)
                if output.vector:
                    return tirx.BufferStore(vector, value, [lane])
                return self._stored(value, first + lane)

            made = [*reads, tir.unrolled(self.width, one, "lane")]
            if output.vector:
                to = tirx.BufferLoad(output.buffer, self._at(output.indices, first))
                source = tir.address(vector, tir.number(0))
                made.append(_copied(tirx.address_of(to), source, output.dtype, self.width))
            return tir.sequence(made)

        return self._turns(turn)

    def _result(self) -> Any:
        """The one element of a row."""
        zero = tir.number(0)
        store = self._stored(self._value(self.form.output, zero, zero), zero)
        return tir.when([tirx.EQ(self.lane, zero)], store)

    def _at(self, indices: Sequence[Expr], element: Expr) -> list[Expr]:
        return [self.form.places.at(index, self.row, element) for index in indices]

    def _stored(self, value: Expr, element: Expr) -> Any:
        output = self.form.output
        return tirx.BufferStore(output.buffer, value, self._at(output.indices, element))


def _copied(to: Expr, source: Expr, dtype: str, count: int) -> Any:
    return tir.call(f"vector<{tir.c_type(dtype)}, {count}>", to, source)


def _start(stage: Stage) -> Expr:
    """What changes nothing that it is combined with: maxima of infinities are infinite."""
    ends: Mapping[Any, float] = {prim.Max: -inf, prim.Min: inf}
    if stage.dtype.startswith("float") and stage.kind in ends:
        return tirx.const(ends[stage.kind], stage.dtype)
    return stage.start
