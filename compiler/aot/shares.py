"""What each thread does of a statement with parallel loops: its share of their turns."""

from collections.abc import Iterator
from typing import Any

from tvm import s_tir, tirx
from tvm_ffi import structural_walk

from hybridc.compiler.ir.accesses import stored_and_loaded

Statement = Any  # tvm.tirx.Stmt


def tasks(statement: Statement, threads: int) -> int:
    """Among how many threads the turns of its parallel loops are divided evenly.

    1 if it has none, 0 if threads cannot go through it without waiting for each other.
    """
    if not _parallel(statement):
        return 1
    loops = list(_shared(statement))
    found = [_even(loop.extent, threads) for loop in loops if loop is not None]
    return max(found) if found and len(found) == len(loops) else 0


def guarded(statement: Statement, task: Any) -> Statement:
    """The statement, of which the first task alone does what is in no parallel loop."""
    if not _parallel(statement):
        first = tirx.EQ(task, tirx.const(0, "int32"))
        return tirx.IfThenElse(first, statement, None)
    match statement:
        case tirx.SeqStmt():
            *before, last = statement.seq
            return tirx.SeqStmt([*before, guarded(last, task)])
        case tirx.IfThenElse():
            other = statement.else_case
            other = None if other is None else guarded(other, task)
            return tirx.IfThenElse(statement.condition, guarded(statement.then_case, task), other)
        case tirx.AttrStmt():
            body = guarded(statement.body, task)
            return tirx.AttrStmt(statement.node, statement.attr_key, statement.value, body)
        case _:
            return statement  # in a loop around parallel ones there is nothing else


def share(loop: Any, task: Any, tasks: int) -> Any:
    """A loop, of whose turns one task takes its share if it is parallel."""
    if loop.kind != tirx.ForKind.PARALLEL:
        return loop
    if _is_single(loop):  # left within another, or to the first task
        return tirx.For(loop.loop_var, loop.min, loop.extent, tirx.ForKind.SERIAL, loop.body)
    dtype = str(loop.loop_var.ty.dtype)
    each, left = _each(loop.extent, tasks, dtype)
    first = tirx.Cast(dtype, task) * each
    count = each
    if left is not None:
        count = tirx.max(tirx.min(each, left - first), tirx.const(0, dtype))
    serial = tirx.ForKind.SERIAL
    start = loop.min + first
    return tirx.For(loop.loop_var, start, count, serial, loop.body, annotations=loop.annotations)


def _each(extent: Any, tasks: int, dtype: str) -> tuple[Any, Any | None]:
    """The turns of a task, and how many there are where the last tasks may have fewer."""
    if not isinstance(extent, tirx.IntImm):
        more = extent + tirx.const(tasks - 1, dtype)
        return tirx.truncdiv(more, tirx.const(tasks, dtype)), extent
    turns = int(extent)
    each = -(-turns // tasks)
    return tirx.const(each, dtype), None if each * tasks == turns else tirx.const(turns, dtype)


def _even(extent: Any, threads: int) -> int:
    """Tasks among which turns are divided as evenly as among all threads."""
    if not isinstance(extent, tirx.IntImm):
        return threads
    return -(-int(extent) // -(-int(extent) // threads))


def _shared(
    statement: Statement, within: Statement | None = None, deep: bool = False
) -> Iterator[Any | None]:
    """The parallel loops whose turns threads share; None for what they would have to wait for.

    Threads go through a loop around them each at its own pace, so that no turn of it may read what
    another one has stored.  `within` is the outermost such loop, `deep` says that there is a loop
    or a block around, in which all is done by each thread.
    """
    match statement:
        case tirx.For():
            yield from _of_loop(statement, within)
        case s_tir.SBlockRealize() if _is_plain(statement):
            yield from _shared(statement.block.body, within, True)
        case tirx.AttrStmt():
            yield from _shared(statement.body, within, deep)
        case tirx.IfThenElse():
            for branch in (statement.then_case, statement.else_case):
                if branch is not None and (deep or _parallel(branch)):
                    yield from _shared(branch, within, deep)
        case tirx.SeqStmt() if all(isinstance(each, tirx.Bind) for each in statement.seq[:-1]):
            yield from _shared(statement.seq[-1], within, deep)
        case _:
            yield None


def _of_loop(loop: Any, within: Statement | None) -> Iterator[Any | None]:
    if loop.kind == tirx.ForKind.PARALLEL:
        read = within is not None and _reads_back(within)
        yield None if read or _parallel(loop.body) else loop
    else:
        outermost = None if _is_single(loop) else loop
        yield from _shared(loop.body, within or outermost, True)


def _is_plain(realize: Any) -> bool:
    block = realize.block
    return not (realize.iter_values or block.match_buffers or block.init)


def _is_single(loop: Any) -> bool:
    return isinstance(loop.extent, tirx.IntImm) and int(loop.extent) == 1


def _reads_back(loop: Any) -> bool:
    """Whether a loop reads buffers that it stores to, but for those that each turn has anew."""
    stored, loaded = stored_and_loaded(loop.body)
    own: set[Any] = set()
    structural_walk(loop.body, (s_tir.SBlock, lambda block: own.update(block.alloc_buffers)))
    return bool((stored & loaded) - own)


def _parallel(body: Statement) -> bool:
    """Whether there is a parallel loop, of more than one turn."""
    found: list[Any] = []
    structural_walk(body, (tirx.For, found.append))
    return any(loop.kind == tirx.ForKind.PARALLEL and not _is_single(loop) for loop in found)
