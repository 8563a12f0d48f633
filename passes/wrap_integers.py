"""Let sums, differences and products of integers wrap."""

from dataclasses import dataclass, field
from typing import Any

import tvm_ffi
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.ir.rewrite import rewrite_kernels
from hybridc.compiler.kernels import wrapping
from hybridc.compiler.kernels.imported import with_functions

Expr = Any  # tvm.ir.Expr

_KINDS = tuple(wrapping.OPERATORS)
# A sum of so small numbers takes 2^13 of them to leave 32 bits; accumulators of bytes' products
# are such, and their instructions are matched as they are.
_SMALL = 18


@dataclass(frozen=True)
class WrapIntegers(Pass):
    """Let sums, differences and products of integers wrap.

    TVM assumes that integers of 32 and 64 bits, and unsigned ones, do not overflow, and tells LLVM
    so: `x + 1 > x` is then always true, even for the largest integer.  Where operands are data, and
    not known to be small, this uses operators that wrap, which compile to the same instructions.
    Indices stay.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the integers in every loop nest."""
        return rewrite_kernels(module, _rewrite)


def _rewrite(func: PrimFunc) -> PrimFunc:
    wrapper = _Wrapper()
    wrapper.look(func.body)
    body = structural_map(func.body, (_KINDS, wrapper.wrapped))
    if not wrapper.done:
        return func
    return with_functions(func.with_body(body), wrapping.functions(wrapper.widths))


@dataclass
class _Wrapper:
    """What is known of a loop nest: nodes by their hash, since they compare to expressions."""

    widths: set[int] = field(default_factory=lambda: {1})
    left: set[int] = field(default_factory=set[int])
    bound: set[int] = field(default_factory=set[int])
    done: bool = False

    def look(self, body: Any) -> None:
        """Find what has to stay, the widths of vectors, and variables that hold data."""
        structural_walk(body, (TensorLoad, lambda load: self._leave(load.indices)))
        structural_walk(body, (tirx.BufferStore, self._store))
        structural_walk(body, (tirx.Let, self._let))
        structural_walk(body, (tirx.For, self._loop))

    def wrapped(self, value: Any) -> Expr:
        """The operator that wraps, in the place of one on data that might overflow."""
        dtype = value.ty.dtype
        if str(dtype).partition("x")[0] not in wrapping.KINDS or hash(value) in self.left:
            return value
        if _fits(value) or not self._is_data(value):
            return value
        self.widths.add(int(dtype.lanes))
        self.done = True
        return wrapping.wrapped(type(value), value.a, value.b)

    def _leave(self, expressions: Any) -> None:
        for each in expressions:
            structural_walk(each, (_KINDS, lambda node: self.left.add(hash(node))))

    def _store(self, store: Any) -> None:
        """Places, and sums of small numbers in one place."""
        self._leave(store.indices)
        value = store.value
        if not isinstance(value, prim.Add):
            return
        for total, part in ((value.a, value.b), (value.b, value.a)):
            mine = isinstance(total, TensorLoad) and total.source.same_as(store.buffer)
            if mine and _same(total.indices, store.indices) and _bits(part) <= _SMALL:
                self.left.add(hash(value))

    def _let(self, let: Any) -> None:
        if self._is_data(let.value):
            self.bound.add(hash(let.var))

    def _loop(self, loop: Any) -> None:
        if int(loop.kind) == tirx.ForKind.VECTORIZED:
            self.widths.add(int(loop.extent))

    def _is_data(self, value: Any) -> bool:
        found: list[Any] = []
        structural_walk(value, (TensorLoad, found.append))
        structural_walk(
            value, (tirx.Var, lambda var: found.append(var) if hash(var) in self.bound else None)
        )
        return bool(found)


def _same(one: Any, other: Any) -> bool:
    return bool(tvm_ffi.structural_equal(list(one), list(other)))


def _fits(value: Any) -> bool:
    """Whether a result is within its type, whatever the operands are."""
    signed = str(value.ty.dtype).startswith("int")
    if not signed and isinstance(value, prim.Sub):
        return False
    return _bits(value) <= int(value.ty.dtype.bits) - signed


def _bits(value: Any) -> int:
    """How many bits a number's magnitude takes at most."""
    if isinstance(value, prim.IntImm):
        return int(value.value).bit_length()
    if isinstance(value, prim.Mul):
        return _bits(value.a) + _bits(value.b)
    if isinstance(value, prim.Add | prim.Sub):
        return max(_bits(value.a), _bits(value.b)) + 1
    dtype = value.value.ty.dtype if isinstance(value, prim.Cast) else value.ty.dtype
    known = str(dtype).startswith(("int", "uint", "bool"))
    return min(int(dtype.bits), int(value.ty.dtype.bits)) if known else int(value.ty.dtype.bits)
