"""Split kernels into parts: functions that do one thread's share of one parallel loop.

TVM starts its threads anew for each parallel loop, which takes 1.4 µs on two cores of a Zen 3, and
waits for all of them.  Parts can be called by threads that run already and only wait for each other
between two parts, in a tenth of that time.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir.transform import module_pass
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.aot import shares
from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.ir.rewrite import updated

Buffer = Any  # tvm.ir.Var of a BufferType
Size = Any  # tvm.ir.Var of an integer: an open size of a kernel
Statement = Any  # tvm.tirx.Stmt

# Statements and operators that a part cannot hold: what leaves a function early, and calls of
# functions outside, which keep their arguments where threads would share them.
_FOREIGN = frozenset(
    ("tirx.tvm_call_packed", "tirx.tvm_call_cpacked", "tirx.call_packed", "tirx.call_cpacked")
)


TASKS = "hybridc.tasks"  # marks a part, and says among how many tasks its loop is divided


@dataclass(frozen=True)
class Condition:
    """Where a part has anything to do: a value of open sizes, and the statements it needs."""

    binds: tuple[Any, ...]
    value: Any

    def at(self, sizes: Mapping[Size, Any]) -> tuple[list[Statement], Any]:
        """The same of the sizes of a call, with variables of its own."""
        known, made = dict(sizes), list[Statement]()
        for bind in self.binds:
            own = tirx.Var(bind.var.name, bind.var.ty)
            made.append(tirx.Bind(own, substituted(bind.value, known)))
            known[bind.var] = own
        return made, substituted(self.value, known)


def substituted(value: Any, known: Mapping[Any, Any]) -> Any:
    """An expression in which some variables are others, or what they stand for."""
    return structural_map(value, (tirx.Var, lambda var: known.get(var, var)))


@dataclass(frozen=True)
class Part:
    """One loop of a kernel as a function of the `buffers`' data and of the number of a task.

    There are as many `tasks` as threads at most, 1 where the loop is not parallel.  Open `sizes`
    are parameters between these, and may say that there is nothing to do.
    """

    func: PrimFunc
    buffers: tuple[Buffer, ...]
    tasks: int
    sizes: tuple[Size, ...] = ()
    condition: Condition | None = None


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
    tasks = [shares.tasks(each, threads) for each in statements]
    if not all(tasks):
        return None
    known = {*(param for param in kernel.params if is_buffer(param)), *own}
    uses = [[var for var in dict.fromkeys(_variables(e)) if var in known] for e in statements]
    users = {buffer: sum(buffer in used for used in uses) for buffer in own}
    shared = [buffer for buffer in own if users[buffer] > 1]
    sizes, parts = sizes_of(kernel), list[Part]()
    for statement, used, count in zip(statements, uses, tasks, strict=True):
        common = [buffer for buffer in used if users.get(buffer) != 1]
        private = [buffer for buffer in used if users.get(buffer) == 1]
        extents = _variables_of([extent for buffer in used for extent in buffer.shape])
        asked = {*_variables(statement), *extents}
        open_sizes = tuple(size for size in sizes if size in asked)
        parts.append(_part(statement, common, private, count, open_sizes))
    return Parts(tuple(kernel.params), tuple(shared), tuple(parts))


def _statements(body: Statement) -> Iterator[Statement]:
    """Those of a sequence; each with the marks that stand around all of them.

    What binds a variable goes before each later one: it counts open sizes, and takes no time.
    """
    if isinstance(body, tirx.AttrStmt):
        for each in _statements(body.body):
            yield tirx.AttrStmt(body.node, body.attr_key, body.value, each)
    elif isinstance(body, tirx.SeqStmt):
        bound: list[Any] = []
        for each in body.seq:
            if isinstance(each, tirx.Bind):
                bound.append(each)
            else:
                yield sequence([*_needed(bound, each), each])
    else:
        yield body


def _needed(bound: Sequence[Any], statement: Statement) -> list[Statement]:
    """The bindings that a statement needs."""
    wanted, kept = set(_variables(statement)), list[Statement]()
    for each in reversed(bound):
        if each.var in wanted:
            kept.insert(0, each)
            wanted |= set(_variables(each.value))
    return kept


def sequence(steps: Sequence[Statement]) -> Statement:
    """Statements one after the other; TVM wants no sequence in a sequence, and none of one."""
    flat = [
        each for step in steps for each in (step.seq if isinstance(step, tirx.SeqStmt) else [step])
    ]
    return flat[0] if len(flat) == 1 else tirx.SeqStmt(flat)


def _root(kernel: PrimFunc) -> Any | None:
    """The block around all loops, where the kernel is that, of buffers and their sizes."""
    if not isinstance(kernel.body, s_tir.SBlockRealize):
        return None
    block = kernel.body.block
    plain = not (block.iter_vars or block.match_buffers or block.annotations or block.init)
    known = set(sizes_of(kernel))
    extents = [extent for buffer in block.alloc_buffers for extent in buffer.shape]
    return block if plain and set(_variables_of(extents)) <= known else None


def sizes_of(kernel: PrimFunc) -> list[Size]:
    """The open sizes of a kernel's buffers, and those that it is given as numbers."""
    extents = [e for param in kernel.params if is_buffer(param) for e in param.shape]
    numbers = [param for param in kernel.params if not is_buffer(param)]
    return list(dict.fromkeys([*_variables_of(extents), *numbers]))


def is_buffer(param: Any) -> bool:
    """Whether a parameter is a buffer, and no number."""
    return isinstance(param.ty, tirx.buffer.BufferType)


def _variables_of(extents: Sequence[Any]) -> Iterator[Size]:
    for extent in extents:
        yield from tirx.analysis.undefined_vars(extent)


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
    statement: Statement,
    common: Sequence[Buffer],
    private: Sequence[Buffer],
    tasks: int,
    sizes: tuple[Size, ...],
) -> Part:
    handles = [
        tirx.Var(buffer.name, tvm.ir.PointerType(tvm.ir.PrimType(str(buffer.dtype)), "global"))
        for buffer in common
    ]
    declared = [tirx.DeclBuffer(b, data=h) for b, h in zip(common, handles, strict=True)]
    task = tirx.Var("task", "int32")
    body = sequence([*declared, shares.guarded(statement, task) if tasks > 1 else statement])
    block = s_tir.SBlock([], [], [], "root", body, alloc_buffers=list(private))
    realized, status = s_tir.SBlockRealize([], True, block), tvm.ir.PrimType("int32")
    func = tirx.PrimFunc([*handles, *sizes, task], realized, status)
    wanted = _condition(statement, sizes) if tasks > 1 else None
    func = func.with_attr({"s_tir": True, TASKS: tasks})
    return Part(func, tuple(common), tasks, sizes, wanted)


def _condition(statement: Statement, sizes: Sequence[Size]) -> Condition | None:
    """The condition under which a statement does anything, where open sizes alone tell it."""
    *binds, last = statement.seq if isinstance(statement, tirx.SeqStmt) else [statement]
    if not isinstance(last, tirx.IfThenElse) or last.else_case is not None:
        return None
    known = set(sizes)
    for bind in binds:
        if not set(_variables(bind.value)) <= known:
            return None
        known.add(bind.var)
    fits = set(_variables(last.condition)) <= known
    return Condition(tuple(binds), last.condition) if fits else None


@module_pass(opt_level=0)
def take_shares(module: IRModule, context: Any) -> IRModule:
    """Make of each parallel loop in a part the turns of one task.

    This is done behind TVM's lowering, which knows less of a loop that begins anywhere.
    """
    shares = {
        var: func.with_body(_public(structural_map(func.body, (tirx.For, _shared(func)))))
        for var, func in module.functions_items()
        if is_part(func)
    }
    return updated(module, shares)


def _shared(func: PrimFunc) -> Callable[[Any], Any]:
    task, tasks = func.params[-1], int(func.attrs[TASKS])
    return lambda loop: shares.share(loop, task, tasks)


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
