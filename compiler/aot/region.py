"""One start of the threads for all kernels: they call the parts, and wait for each other between.

TVM's code generator makes of a statement with `_REGION` one start of the threads, divides the
parallel loops in it among those that run, and lets them wait where `_BARRIER` ends.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import tvm
from tvm import tirx

from hybridc.compiler.aot.parts import Part, Parts, is_buffer, sequence, sizes_of
from hybridc.compiler.interfaces import PrimFunc

_REGION, _BARRIER = "pragma_parallel_launch_point", "pragma_parallel_barrier_when_finish"
Statement = Any  # tvm.tirx.Stmt


class Failures:
    """Whether any part has failed, which no thread may leave at once: others wait for it."""

    def __init__(self) -> None:
        self._flag = tirx.decl_buffer((1,), "int32", "failed")

    def noted(self, call: Any) -> Statement:
        """The call, whose answer is remembered unless it is 0."""
        store = tirx.BufferStore(self._flag, tirx.const(1, "int32"), [0])
        return tirx.IfThenElse(tirx.NE(call, tirx.const(0, "int32")), store, None)

    def around(self, steps: Sequence[Statement]) -> Statement:
        """Steps that make such calls, as a function's body, which raises an error if one failed."""
        none = tirx.BufferStore(self._flag, tirx.const(0, "int32"), [0])
        fine = tirx.EQ(tirx.BufferLoad(self._flag, [0]), tirx.const(0, "int32"))
        message = [tvm.ir.StringImm("a kernel found no memory for its buffers")]
        failed = tirx.AssertStmt(fine, tvm.ir.StringImm("RuntimeError"), message)
        return sequence([tirx.AllocBuffer(self._flag), none, in_order(steps), failed])


def in_order(steps: Sequence[Statement]) -> Statement:
    """Statements between which LLVM moves no load or store.

    It may see through calls of parts, takes their buffers for different memory, and knows nothing
    of storage that is used again.  An instruction that orders stores is no obstacle to a CPU.
    """
    ordered = tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.x86.sse.sfence"))
    return sequence([each for step in steps for each in (step, ordered)][:-1])


@dataclass(frozen=True)
class Kernel:
    """A kernel in parts, with the functions' names in the module."""

    parts: Parts
    names: Sequence[Any]

    def calls(
        self,
        data: Mapping[Any, Any],
        failures: Failures,
        condition: Callable[[Part], Any] = lambda _: None,
        when: Sequence[Any] | None = None,
    ) -> list["Call"]:
        """The calls of its parts, given where the data of parameters and shared buffers lie.

        Open sizes are given with them.  One for which there is a condition is made where that is
        true; `when` are the parts' own conditions, where they are known.
        """
        parts = self.parts.parts
        if when is None:
            when = [_when(part, data) for part in parts]
        return [
            Call(name, part, _given(part, data), failures, condition(part), wanted)
            for part, name, wanted in zip(parts, self.names, when, strict=True)
        ]

    def alone(self, kernel: PrimFunc) -> PrimFunc:
        """The kernel as it was, which now calls its parts."""
        shared, failures = self.parts.shared, Failures()
        own = [tirx.AllocBuffer(buffer) for buffer in shared]
        buffers = [buffer for buffer in (*kernel.params, *shared) if is_buffer(buffer)]
        data = {buffer: buffer.data for buffer in buffers}
        data |= {size: size for size in sizes_of(kernel)}
        calls = [call.statement() for call in self.calls(data, failures)]
        body = sequence([*own, failures.around(calls)])
        return tirx.PrimFunc(kernel.params, body, kernel.ret_type, kernel.attrs)


def _given(part: Part, data: Mapping[Any, Any]) -> tuple[Any, ...]:
    return tuple(data[each] for each in (*part.buffers, *part.sizes))


def _when(part: Part, data: Mapping[Any, Any]) -> tuple[list[Statement], Any] | None:
    known = {size: data[size] for size in part.sizes}
    return None if part.condition is None else part.condition.at(known)


@dataclass(frozen=True)
class Call:
    """The tasks of one part, on the data that its buffers and sizes stand for.

    `when` says at which sizes threads need not meet for it.
    """

    name: Any
    part: Part
    data: tuple[Any, ...]
    failures: Failures
    condition: Any = None
    when: tuple[list[Statement], Any] | None = None

    def task(self, number: Any) -> Statement:
        """One of them."""
        call = tvm.ir.Call(self.name, [*self.data, number], ret_ty="int32")
        made = self.failures.noted(call)
        return made if self.condition is None else tirx.IfThenElse(self.condition, made, None)

    def statement(self, mark: str = "") -> Statement:
        """All of them: a parallel loop, which may be marked, or one call where there is one."""
        if self.part.tasks == 1:
            return self.task(tirx.const(0, "int32"))
        loop = _parallel(self.part.tasks, self.task)
        return self._wanted(_marked(mark, loop) if mark else loop)

    def serial(self) -> Statement:
        """All of them on the thread that is there."""
        return self._wanted(_loop(self.part.tasks, self.task, tirx.ForKind.SERIAL))

    def _wanted(self, body: Statement) -> Statement:
        if self.when is None:
            return body
        binds, value = self.when
        return sequence([*binds, tirx.IfThenElse(value, body, None)])


def region(calls: Sequence[Call]) -> Statement:
    """Calls one after the other, under one start of the threads if any is a parallel loop.

    What is none runs on one thread, without waiting between two such calls.
    """
    if all(call.part.tasks == 1 for call in calls):
        return in_order([call.statement() for call in calls])
    steps: list[Statement] = []
    for alone, group in groupby(calls, key=lambda call: call.part.tasks == 1):
        if alone:
            body = in_order([call.statement() for call in group])
            steps.append(_marked(_BARRIER, _on_one_thread(body)))
        else:
            steps += [call.statement(_BARRIER) for call in group]
    return _marked(_REGION, sequence(steps))


def _on_one_thread(body: Statement) -> Statement:
    """As a parallel loop, since threads know their numbers by those alone; TVM drops one of 1."""

    def first(task: Any) -> Statement:
        return tirx.IfThenElse(tirx.EQ(task, tirx.const(0, "int32")), body, None)

    return _parallel(2, first)


def _parallel(tasks: int, body: Callable[[Any], Statement]) -> Statement:
    return _loop(tasks, body, tirx.ForKind.PARALLEL)


def _loop(tasks: int, body: Callable[[Any], Statement], kind: Any) -> Statement:
    task = tirx.Var("task", "int32")
    zero, extent = tirx.const(0, "int32"), tirx.const(tasks, "int32")
    return tirx.For(task, zero, extent, kind, body(task))


def _marked(mark: str, body: Statement) -> Statement:
    return tirx.AttrStmt(tirx.const(0, "int32"), mark, tirx.const(1, "int32"), body)


def regions(steps: Sequence[Statement | Call]) -> Iterator[Statement]:
    """Statements as they are, and calls of parts between them under as few starts as possible."""
    for inside, group in groupby(steps, key=lambda step: isinstance(step, Call)):
        if inside:
            yield region(list(group))
        else:
            yield from group
