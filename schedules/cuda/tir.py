"""Short words for the statements of kernels that are written out thread by thread."""

from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from typing import Any

from tvm import tirx
from tvm.ir.prim import expr as prim

Expr = Any
Stmt = Any
Buffer = Any

INDEX = "int32"
ROLLED = "rolled"  # the variable of loops that no compiler may write out
# Bytes after which a swizzle of 128 bytes repeats, to which `wgmma` wants tiles aligned.
_SWIZZLED = 1024


def variable(name: str) -> Expr:
    """A variable that counts."""
    return tirx.Var(name, INDEX)


def number(value: int) -> Expr:
    """A constant that counts."""
    return tirx.const(value, INDEX)


def sequence(statements: Iterable[Stmt]) -> Stmt:
    """One after another."""
    made = list(statements)
    return made[0] if len(made) == 1 else tirx.SeqStmt(made)


def loop(extent: Expr, body: Callable[[Expr], Stmt], name: str = "i", unroll: bool = False) -> Stmt:
    """A loop; one of a single turn is none."""
    known = isinstance(extent, int)
    if known and extent == 1:
        return body(number(0))
    var = variable(name)
    kind = tirx.ForKind.UNROLLED if unroll else tirx.ForKind.SERIAL
    return tirx.For(var, number(0), number(extent) if known else extent, kind, body(var))


def unrolled(extent: int, body: Callable[[Expr], Stmt], name: str = "i") -> Stmt:
    """A loop that is written out."""
    return loop(extent, body, name, unroll=True)


def rolled(extent: Expr, body: Callable[[Expr], Stmt]) -> Stmt:
    """A loop that no compiler writes out: see `cuda.prelude`."""
    return loop(extent, body, ROLLED)


def when(conditions: Sequence[Expr], body: Stmt) -> Stmt:
    """Only where all conditions hold."""
    return tirx.IfThenElse(tirx.all(*conditions), body, None) if conditions else body


def together(conditions: Sequence[Expr]) -> Expr:
    """Whether all conditions hold, without a branch for each of them."""
    parts: list[Expr] = []
    left = list(conditions)
    while left:
        condition = left.pop()
        if isinstance(condition, prim.And):
            left += [condition.a, condition.b]
        else:
            parts.append(condition)
    if len(parts) == 1:
        return parts[0]
    return reduce(tirx.bitwise_and, (part.astype(INDEX) for part in parts)) != 0


def call(name: str, *arguments: Expr) -> Stmt:
    """A call of a function of the prelude."""
    return tirx.Evaluate(tirx.call_extern("void", f"hybridc_{name}", *arguments))


def got(dtype: str, address: Expr) -> Expr:
    """What lies in shared memory."""
    return tirx.call_extern(dtype, f"hybridc_get<{c_type(dtype)}>", address)


def beside(place: Expr, block: Expr) -> Expr:
    """A place in shared memory as it is in that of another block of the cluster."""
    return tirx.call_extern("handle", "hybridc_beside", place, block)


def c_type(dtype: str) -> str:
    """An element type in CUDA C++."""
    return {
        "float32": "float",
        "float16": "half",
        "bfloat16": "nv_bfloat16",
        "int32": "int",
        "int8": "signed char",
        "uint8": "unsigned char",
    }[dtype]


def barrier() -> Stmt:
    """All threads of the block meet."""
    return tirx.Evaluate(tirx.call_intrin("void", "tirx.tvm_storage_sync", "shared"))


def buffer(name: str, size: int, dtype: str, scope: str) -> Buffer:
    """Memory of a block or a thread."""
    aligned = _SWIZZLED if scope == "shared.dyn" else -1
    return tirx.decl_buffer([size], dtype, name, scope=scope, data_alignment=aligned)


def address(source: Buffer, index: Expr) -> Expr:
    """Where an element lies."""
    return tirx.address_of(tirx.BufferLoad(source, [index]))


def launched(axes: Sequence[tuple[str, Expr, int]], body: Stmt) -> Stmt:
    """A body for each of so many blocks and threads: tag, variable, extent."""
    for tag, var, extent in reversed(axes):
        bound = tirx.IterVar(None, var, tirx.IterVar.ThreadIndex, tag)
        body = tirx.AttrStmt(bound, "thread_extent", number(extent), body)
    return body


def allocated(buffers: Iterable[Buffer], body: Stmt) -> Stmt:
    """A body with its buffers.

    Those of threads and blocks are named as a whole: TVM cuts off what lies behind the last element
    whose address is taken, though functions read and write some from there on.
    """
    made = list(buffers)
    whole = [call("whole", each.data) for each in made if each.scope() != "global"]
    return tirx.SeqStmt([*map(tirx.AllocBuffer, made), *whole, body])


def unflatten(flat: Expr, axes: Sequence[tuple[Any, int]]) -> dict[Any, Expr]:
    """The axes' values at element `flat`, counted row by row, in the axes' own types."""
    found: dict[Any, Expr] = {}
    for position in reversed(range(len(axes))):
        var, extent = axes[position]
        outermost = all(other == 1 for _, other in axes[:position])
        value = number(0) if extent == 1 else flat if outermost else flat % extent
        found[var] = tirx.Cast(str(var.ty.dtype), value)
        flat = flat // extent if extent > 1 else flat
    return found
