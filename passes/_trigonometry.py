"""sin, cos and tan of float32 in vector registers, and by the C library for large arguments.

An argument is brought to within pi/4 of a multiple n of pi/2 by subtracting n times pi/2 in three
parts (Cody and Waite), the products exact in fused multiply-adds.  That holds up to `LIMIT`; for
what lies beyond, more bits of pi are needed.  Where a vector holds such an argument, a loop behind
it calls the C library for these lanes alone, so that every result is right.
"""

import math
from collections.abc import Callable
from typing import Any

from tvm import s_tir, tirx
from tvm.ir.expr import Call, TensorLoad
from tvm.ir.prim import expr as prim
from tvm.tirx import Select
from tvm_ffi import structural_map, structural_walk

from hybridc.passes._float_types import let
from hybridc.passes._polynomials import FLOAT32, horner, real, whole

Expr = Any  # tvm.ir.Expr
Var = Any  # tvm.ir.expr.Var

# 2/pi of it rounds to a whole number below 2^16, exactly.
LIMIT = 1.0e5
_LIMIT_BITS = 0x47C35000
_MAGNITUDE = 0x7FFFFFFF
# pi/2 in three parts of 24 bits, all positive: so -0 stays -0.
_PARTS = (1.570796251296997, 7.549789415861596e-08, 5.390302529957765e-15)
# (sin(r) - r) / r^3 and (cos(r) - 1 + r^2/2) / r^4 as polynomials of r^2 for |r| <= 1.02 pi/4:
# relative errors of sin 4.4e-9, of cos 1.4e-10.
_SIN = (-0.16666653752326965, 0.00833206344395876, -0.00019502133363857865)
_COS = (0.04166664183139801, -0.0013887184904888272, 2.4418126486125402e-05)


def sin(x: Expr) -> Expr:
    """The sine, where |x| <= LIMIT."""
    return _reduced(x, lambda r, n: _signed(_either(n, _cosine(r), _sine(r)), n))


def cos(x: Expr) -> Expr:
    """The cosine, where |x| <= LIMIT."""
    return _reduced(x, lambda r, n: _signed(_either(n, _cosine(r), _sine(r)), n), quarters=1)


def tan(x: Expr) -> Expr:
    """The tangent, where |x| <= LIMIT: a quotient of the two, or its negative inverse."""

    def quotient(r: Expr, n: Expr) -> Expr:
        above, below = _either(n, _cosine(r), _sine(r)), _either(n, _sine(r), _cosine(r))
        return _signed(above / below, n * whole(2))

    return _reduced(x, quotient)


FUNCTIONS = {"tirx.sin": sin, "tirx.cos": cos, "tirx.tan": tan}


def in_vectors(loop: Any) -> Any:
    """A vectorised loop of one store with these functions in vectors; any other loop as it is."""
    if int(loop.kind) != tirx.ForKind.VECTORIZED:
        return loop
    store = _store(loop.body)
    found = _calls(store.value) if store is not None else []
    alone = isinstance(loop.extent, tirx.IntImm) and int(loop.extent) == 1  # no vector
    if alone or not found or not all(map(_plain, found)) or _reads_itself(store):
        return loop

    def fast(call: Any) -> Any:
        function = FUNCTIONS.get(_name(call))
        return function(call.args[0]) if function else call

    vector = structural_map(loop.body, (Call, fast))
    whole = tirx.For(
        loop.loop_var, loop.min, loop.extent, loop.kind, vector, None, loop.annotations
    )
    sizes = tirx.decl_buffer((loop.extent,), "int32", "sizes")

    def sized(body: Any) -> Any:
        return structural_map(body, (tirx.BufferStore, lambda x: _size(x, sizes, loop.loop_var)))

    parts = [whole, _copy(loop, sized, loop.kind), _where_large(sizes, _copy(loop, _guarded))]
    block = s_tir.SBlock([], [], [], "angles", tirx.SeqStmt(parts), alloc_buffers=[sizes])
    return s_tir.SBlockRealize([], True, block)


def _size(store: Any, sizes: Any, lane: Var) -> Any:
    """Store the largest of a lane's arguments by its bits, which are in order without the sign."""
    bits = [tirx.reinterpret("int32", call.args[0]) for call in _calls(store.value)]
    largest, *others = (tirx.bitwise_and(each, whole(_MAGNITUDE)) for each in bits)
    for other in others:
        largest = tirx.max(largest, other)
    return tirx.BufferStore(sizes, largest, [lane])


def _where_large(sizes: Any, statement: Any) -> Any:
    """Do something if a lane holds an argument beyond the limit, or none that is a number."""
    (count,) = sizes.shape
    lanes = sizes[tirx.Ramp(_like(0, count), _like(1, count), int(count))]
    largest = tirx.call_llvm_pure_intrin("int32", "llvm.vector.reduce.smax", lanes)
    return tirx.IfThenElse(largest > whole(_LIMIT_BITS), statement, None)


def _reduced(x: Expr, function: Callable[[Expr, Expr], Expr], quarters: int = 0) -> Expr:
    """`function` of the rest of x behind the multiple n of pi/2, and of n plus some `quarters`."""

    def of_multiple(x: Expr, shifted: Expr) -> Expr:
        multiple, rest = shifted - real(FLOAT32.rounding), x
        for part in _PARTS:
            rest = rest - multiple * real(part)
        count = tirx.reinterpret("int32", shifted)
        count = count + whole(quarters) if quarters else count
        return let("r", rest, lambda r: function(r, count))

    def of_argument(x: Expr) -> Expr:
        return let("z", x * real(2 / math.pi) + real(FLOAT32.rounding), lambda z: of_multiple(x, z))

    return let("argument", x, of_argument)


def _sine(r: Expr) -> Expr:
    # A product, so that -0 stays what it is.
    return let("t", r * r, lambda t: (t * horner(_SIN, t) + real(1.0)) * r)


def _cosine(r: Expr) -> Expr:
    return let("t", r * r, lambda t: t * t * horner(_COS, t) - t * real(0.5)) + real(1.0)


def _either(n: Expr, odd: Expr, even: Expr) -> Expr:
    return Select(tirx.bitwise_and(n, whole(1)) > whole(0), odd, even)


def _signed(value: Expr, n: Expr) -> Expr:
    """The value, negative where the second bit of n is set."""
    sign = tirx.shift_left(tirx.shift_right(n, whole(1)), whole(31))
    bits = tirx.bitwise_xor(tirx.reinterpret("int32", value), sign)
    return tirx.reinterpret("float32", bits)


def _name(call: Any) -> str:
    return str(getattr(call.op, "name", ""))


def _store(body: Any) -> Any:
    """The store that a loop's body, or its block, comes down to; None if it is anything else."""
    if isinstance(body, s_tir.SBlockRealize):
        body = body.block.body if body.block.init is None else None
    return body if isinstance(body, tirx.BufferStore) else None


def _calls(value: Expr) -> list[Any]:
    found: list[Any] = []
    structural_walk(value, (Call, found.append))
    return [call for call in found if _name(call) in FUNCTIONS]


def _plain(call: Any) -> bool:
    """Whether a call's argument is cheap enough to be computed again, one by one."""
    inner: list[Any] = []
    structural_walk(call.args[0], ((Call, prim.Let), inner.append))
    return not inner and str(call.ty.dtype) == "float32"


def _reads_itself(store: Any) -> bool:
    loads: list[Any] = []
    structural_walk(store.value, (TensorLoad, loads.append))
    return any(load.source.same_as(store.buffer) for load in loads)


def _guarded(body: Any) -> Any:
    """The body's store as it was, for large arguments alone."""

    def ask(store: Any) -> Any:
        large = [tirx.abs(call.args[0]) > real(LIMIT) for call in _calls(store.value)]
        condition = large[0]
        for other in large[1:]:
            condition = tirx.any(condition, other)
        return tirx.IfThenElse(condition, store, None)

    return structural_map(body, (tirx.BufferStore, ask))


def _like(value: int, like: Expr) -> Expr:
    return tirx.const(value, str(like.ty.dtype))


def _copy(loop: Any, change: Callable[[Any], Any], kind: Any = tirx.ForKind.SERIAL) -> Any:
    """The loop, one by one if not told otherwise, its body changed, with variables of its own."""
    renamed: dict[Var, Var] = {loop.loop_var: tirx.Var(loop.loop_var.name, loop.loop_var.ty)}

    def define(axis: Any) -> None:
        renamed[axis.var] = tirx.Var(axis.var.name, axis.var.ty)

    structural_walk(loop.body, (tirx.IterVar, define))
    variable = type(loop.loop_var)
    body = structural_map(change(loop.body), (variable, lambda var: renamed.get(var, var)))
    return tirx.For(renamed[loop.loop_var], loop.min, loop.extent, kind, body)
