"""Split kernels into parts: functions that do one thread's share of one parallel loop.

TVM starts its threads anew for each parallel loop, which takes 1.4 µs on two cores of a Zen 3, and
waits for all of them.  Parts can be called by threads that run already and only wait for each other
between two parts, in a tenth of that time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir.transform import module_pass
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.ir.rewrite import updated

Buffer = Any  # tvm.ir.Var of a BufferType
Statement = Any  # tvm.tirx.Stmt

# Statements and operators that a part cannot hold: what leaves a function early, and calls of
# functions outside, which keep their arguments where threads would share them.
_FOREIGN = frozenset(
    ("tirx.tvm_call_packed", "tirx.tvm_call_cpacked", "tirx.call_packed", "tirx.call_cpacked")
)


TASKS = "hybridc.tasks"  # marks a part, and says among how many tasks its loop is divided


@dataclass(frozen=True)
class Part:
    """One loop of a kernel as a function of the `buffers`' data and of the number of a task.

    There are as many `tasks` as threads at most, 1 where the loop is not parallel.
    """

    func: PrimFunc
    buffers: tuple[Buffer, ...]
    tasks: int


@dataclass(frozen=True)
class Parts:
    """A kernel as parts in their order, with the buffers of its own that several of them use."""

    params: tuple[Buffer, ...]
    shared: tuple[Buffer, ...]
    parts: tuple[Part, ...]


def split(kernel: PrimFunc, threads: int) -> Parts | None:
    """The parts of a scheduled kernel; None if it is more than loops over buffers."""
    root = _root(kernel)
    if root is None or _foreign(kernel.body):
        return None
    statements = list(_statements(root.body))
    own = list(root.alloc_buffers)
    tasks = [_tasks(each, threads) for each in statements]
    if not all(tasks):
        return None
    known = {*kernel.params, *own}
    uses = [[var for var in dict.fromkeys(_variables(e)) if var in known] for e in statements]
    users = {buffer: sum(buffer in used for used in uses) for buffer in own}
    shared = [buffer for buffer in own if users[buffer] > 1]
    parts: list[Part] = []
    for statement, used, count in zip(statements, uses, tasks, strict=True):
        common = [buffer for buffer in used if users.get(buffer) != 1]
        private = [buffer for buffer in used if users.get(buffer) == 1]
        parts.append(_part(statement, common, private, count))
    return Parts(tuple(kernel.params), tuple(shared), tuple(parts))


def _statements(body: Statement) -> Iterator[Statement]:
    """Those of a sequence; each with the marks that stand around all of them."""
    if isinstance(body, tirx.AttrStmt):
        for each in _statements(body.body):
            yield tirx.AttrStmt(body.node, body.attr_key, body.value, each)
    elif isinstance(body, tirx.SeqStmt):
        yield from body.seq
    else:
        yield body


def sequence(steps: Sequence[Statement]) -> Statement:
    """Statements one after the other; TVM wants no sequence in a sequence, and none of one."""
    flat = [
        each for step in steps for each in (step.seq if isinstance(step, tirx.SeqStmt) else [step])
    ]
    return flat[0] if len(flat) == 1 else tirx.SeqStmt(flat)


def _root(kernel: PrimFunc) -> Any | None:
    """The block around all loops, where the kernel is that and its parameters are buffers."""
    if not all(isinstance(param.ty, tirx.buffer.BufferType) for param in kernel.params):
        return None
    if not isinstance(kernel.body, s_tir.SBlockRealize):
        return None
    block = kernel.body.block
    plain = not (block.iter_vars or block.match_buffers or block.annotations or block.init)
    sized = all(_is_sized(buffer) for buffer in (*kernel.params, *block.alloc_buffers))
    return block if plain and sized else None


def _is_sized(buffer: Buffer) -> bool:
    return all(isinstance(extent, tirx.IntImm) for extent in buffer.shape)


def _foreign(body: Statement) -> bool:
    found: list[Any] = []

    def visit(call: Any) -> None:
        if getattr(call.op, "name", "") in _FOREIGN:
            found.append(call)

    structural_walk(body, (tvm.ir.Call, visit))
    structural_walk(body, (tirx.AssertStmt, found.append))
    return bool(found)


def _variables(statement: Statement) -> Iterator[Any]:
    found: list[Any] = []
    structural_walk(statement, (tvm.ir.Var, found.append))
    return iter(found)


def _part(
    statement: Statement, common: Sequence[Buffer], private: Sequence[Buffer], tasks: int
) -> Part:
    handles = [
        tirx.Var(buffer.name, tvm.ir.PointerType(tvm.ir.PrimType(str(buffer.dtype)), "global"))
        for buffer in common
    ]
    declared = [tirx.DeclBuffer(b, data=h) for b, h in zip(common, handles, strict=True)]
    body = sequence([*declared, statement])
    block = s_tir.SBlock([], [], [], "root", body, alloc_buffers=list(private))
    params = [*handles, tirx.Var("task", "int32")]
    func = tirx.PrimFunc(params, s_tir.SBlockRealize([], True, block), tvm.ir.PrimType("int32"))
    return Part(func.with_attr({"s_tir": True, TASKS: tasks}), tuple(common), tasks)


def _tasks(statement: Statement, threads: int) -> int:
    """Among how many threads the turns of a loop are divided evenly; 0 if TVM must do it."""
    loop = statement
    while isinstance(loop, tirx.AttrStmt) or _is_single(loop):
        loop = loop.body
    if not (isinstance(loop, tirx.For) and loop.kind == tirx.ForKind.PARALLEL):
        return 0 if _parallel_loops(loop) else 1
    extent = _extent(loop)
    return 0 if _parallel_loops(loop.body) else -(-extent // -(-extent // threads))


def _is_single(loop: Statement) -> bool:
    return isinstance(loop, tirx.For) and loop.kind == tirx.ForKind.SERIAL and _extent(loop) == 1


def _extent(loop: Any) -> int:
    """Its turns; 0 if their number is not known."""
    return int(loop.extent) if isinstance(loop.extent, tirx.IntImm) else 0


def _parallel_loops(body: Statement) -> int:
    found: list[Any] = []
    structural_walk(body, (tirx.For, found.append))
    return sum(loop.kind == tirx.ForKind.PARALLEL for loop in found)


@module_pass(opt_level=0)
def take_shares(module: IRModule, context: Any) -> IRModule:
    """Make of each parallel loop in a part the turns of one task.

    This is done behind TVM's lowering, which knows less of a loop that begins anywhere.
    """
    shares = {
        var: func.with_body(_public(structural_map(func.body, (tirx.For, _Share(func)))))
        for var, func in module.functions_items()
        if is_part(func)
    }
    return updated(module, shares)


def _public(body: Statement) -> Statement:
    """With what TVM gives to public functions alone, and its lowering of large buffers asks for.

    That makes it return -1 where there is no memory for one.
    """
    return sequence([on_host(body), tirx.Return(tirx.const(0, "int32"))])


def on_host(body: Statement) -> Statement:
    """A body that says where it runs, as TVM learns of other functions by their parameters."""
    for key, value in (("device_id", 0), ("device_type", tvm.cpu().dlpack_device_type())):
        body = tirx.AttrStmt(tirx.const(0, "int32"), key, tirx.const(value, "int32"), body)
    return body


def is_part(func: Any) -> bool:
    """Whether a function is called by its address alone, and no symbol of the library."""
    return bool(func.attrs) and TASKS in func.attrs


class _Share:
    """Replaces a parallel loop by the turns that one task takes."""

    def __init__(self, func: PrimFunc) -> None:
        self._task, self._tasks = func.params[-1], int(func.attrs[TASKS])

    def __call__(self, loop: Any) -> Any:
        if loop.kind != tirx.ForKind.PARALLEL:
            return loop
        dtype = str(loop.loop_var.ty.dtype)
        extent = int(loop.extent)
        each = -(-extent // self._tasks)
        first = tirx.Cast(dtype, self._task) * tirx.const(each, dtype)
        count = tirx.const(each, dtype)
        if each * self._tasks != extent:
            left = tirx.const(extent, dtype) - first
            count = tirx.max(tirx.min(count, left), tirx.const(0, dtype))
        serial = tirx.ForKind.SERIAL
        annotations = loop.annotations
        start = loop.min + first
        return tirx.For(loop.loop_var, start, count, serial, loop.body, annotations=annotations)
