"""Loop nests in bfloat16 as loop nests in float32 that keep 16 bits in memory."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tvm import tirx
from tvm.ir.expr import Call, TensorLoad, Var
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.ir.rewrite import updated
from hybridc.compiler.kernels import bfloat16
from hybridc.compiler.kernels.bfloat16 import BFLOAT16
from hybridc.compiler.kernels.imported import with_functions
from hybridc.compiler.target import Target

_BINARY = (prim.Add, prim.Sub, prim.Mul, prim.Div, prim.Max, prim.Min)


def lower(
    module: IRModule, target: Target, concerned: Callable[[PrimFunc], bool] | None = None
) -> IRModule:
    """The module with its loop nests lowered: those with bfloat16 in them, or the `concerned`."""
    kernels = {
        var: lowered(func, target)
        for var, func in module.functions_items()
        if isinstance(func, tirx.PrimFunc) and (concerned or has_bfloat16)(func)
    }
    return updated(module, kernels) if kernels else module


def lowered(func: PrimFunc, target: Target) -> PrimFunc:
    """One loop nest without bfloat16 but in the types of its parameters."""
    lowering = _Lowering(tuple(func.params))
    body = structural_map(func.body, (prim.Cast, _there_and_back))
    body = structural_map(body, lowering.callbacks())
    return with_functions(func.with_body(body), bfloat16.functions(lowering.widths, target))


def takes_bits(func: PrimFunc) -> bool:
    """Whether a loop nest hands bfloat16 to instructions as bits; TVM cannot lower that itself.

    What is lowered reads the bits of its parameters as uint16.
    """
    found: list[bool] = []

    def visit(call: Any) -> None:
        if str(getattr(call.op, "name", "")) == "tirx.reinterpret":
            lowered = str(call.ty.dtype).startswith("uint16")
            found.append(str(call.args[0].ty.dtype).startswith(BFLOAT16) and not lowered)

    structural_walk(func.body, (Call, visit))
    return any(found)


def has_bfloat16(func: PrimFunc) -> bool:
    """Whether a loop nest reads or writes bfloat16, or rounds to it in between."""
    found: list[str] = []
    structural_walk(func.body, (TensorLoad, lambda load: found.append(str(load.source.dtype))))
    structural_walk(func.body, (tirx.BufferStore, lambda s: found.append(str(s.buffer.dtype))))
    structural_walk(func.body, (prim.Cast, lambda cast: found.append(str(cast.ty.dtype))))
    return any(dtype.startswith(BFLOAT16) for dtype in found)


@dataclass
class _Lowering:
    """Rewrites nodes from the leaves up: what was bfloat16 below one is float32 by then."""

    parameters: tuple[Any, ...]
    widths: set[int] = field(default_factory=lambda: {1})
    variables: dict[Any, Any] = field(default_factory=dict[Any, Any])

    def callbacks(self) -> list[Any]:
        """What to do with each kind of node."""
        return [
            (Var, self._variable),
            (TensorLoad, self._load),
            (tirx.BufferStore, self._store),
            (prim.FloatImm, _constant),
            (_BINARY, lambda node: type(node)(node.a, node.b) if _was(node) else node),
            (prim.Select, _select),
            (prim.Cast, _cast),
            (prim.Let, lambda let: prim.Let(let.var, let.value, let.body) if _was(let) else let),
            (Call, _call),
            (tirx.For, self._loop),
        ]

    def _variable(self, var: Any) -> Any:
        """Buffers of the kernel's own hold bits, scalars are float32."""
        if any(var.same_as(parameter) for parameter in self.parameters):
            return var
        if isinstance(var.ty, tirx.buffer.BufferType):
            if str(var.dtype) == BFLOAT16 and var not in self.variables:
                self.variables[var] = var.with_dtype("uint16")
        elif str(getattr(var.ty, "dtype", "")) == BFLOAT16 and var not in self.variables:
            self.variables[var] = tirx.Var(var.name, "float32")
        return self.variables.get(var, var)

    def _load(self, load: Any) -> Any:
        if not _was(load):
            return load
        loaded = tirx.BufferLoad(load.source, load.indices)
        dtype = str(loaded.ty.dtype)
        if dtype.startswith(BFLOAT16):
            loaded = tirx.reinterpret(dtype.replace(BFLOAT16, "uint16"), loaded)
        return bfloat16.widen(loaded)

    def _store(self, store: Any) -> Any:
        held = str(store.buffer.dtype)
        if held not in (BFLOAT16, "uint16") or not _is_float32(store.value):
            return store
        bits = self._narrow(store.value)
        if held == BFLOAT16:
            bits = tirx.reinterpret(str(bits.ty.dtype).replace("uint16", BFLOAT16), bits)
        return tirx.BufferStore(store.buffer, bits, store.indices)

    def _loop(self, loop: Any) -> Any:
        if int(loop.kind) == tirx.ForKind.VECTORIZED:
            self.widths.add(int(loop.extent))
        return loop

    def _narrow(self, value: Any) -> Any:
        """The bits of a value; those of a copy or a constant are at hand."""
        bits = _bits(value)
        return bfloat16.round_bits(value) if bits is None else bits


def _was(node: Any) -> bool:
    """Whether a node, whose operands are rewritten, was bfloat16."""
    return str(node.ty.dtype).startswith(BFLOAT16)


def _is_float32(value: Any) -> bool:
    return str(value.ty.dtype).startswith("float32")


def _constant(number: Any) -> Any:
    return tirx.const(number.value, "float32") if _was(number) else number


def _select(select: Any) -> Any:
    if not _was(select):
        return select
    return tirx.Select(select.condition, select.true_value, select.false_value)


def _there_and_back(cast: Any) -> Any:
    """A cast of a cast to bfloat16, which is there to round."""
    inner = cast.value
    if not isinstance(inner, prim.Cast) or not _was(inner) or _was(cast) or _was(inner.value):
        return cast
    wide = str(inner.ty.dtype).replace(BFLOAT16, "float32")
    value = inner.value if str(inner.value.ty.dtype) == wide else tirx.Cast(wide, inner.value)
    rounded = bfloat16.widen(bfloat16.round_bits(value))
    return rounded if str(cast.ty.dtype) == wide else tirx.Cast(str(cast.ty.dtype), rounded)


def _cast(cast: Any) -> Any:
    """Casts between the two types are none; others start from float32, or end there."""
    dtype = str(cast.ty.dtype).replace(BFLOAT16, "float32")
    return cast.value if str(cast.value.ty.dtype) == dtype else tirx.Cast(dtype, cast.value)


def _call(call: Any) -> Any:
    name = str(getattr(call.op, "name", ""))
    if name == "tirx.reinterpret":
        return _reinterpret(call)
    if name == "tirx.address_of":
        return tirx.address_of(_element(call.args[0]))
    if not hasattr(call.ty, "dtype") or not _was(call):
        return call
    return tirx.call_intrin(str(call.ty.dtype).replace(BFLOAT16, "float32"), call.op, *call.args)


def _element(value: Any) -> Any:
    """The load itself, whose address is asked for, below what widens it."""
    loads: list[Any] = []
    structural_walk(value, (TensorLoad, loads.append))
    return loads[-1] if loads else value


def _reinterpret(call: Any) -> Any:
    """Bits that were bfloat16's before; and bits that become bfloat16's."""
    (value,) = call.args
    if _was(call):
        return bfloat16.widen(value)
    size, given = _size(call.ty.dtype), _size(value.ty.dtype)
    if given != 2 * size:
        return call
    bits = _bits(value)
    return call if bits is None else tirx.reinterpret(str(call.ty.dtype), bits)


def _size(dtype: Any) -> int:
    """Bits of a scalar or vector type."""
    scalar = str(dtype).partition("x")[0]
    return int("".join(filter(str.isdigit, scalar)) or 1) * bfloat16.lanes_of(str(dtype))


def _bits(value: Any) -> Any:
    """The 16 bits of a value that needs no rounding, or None.

    It was widened, or is a constant of 16 bits, or the choice between two of these.
    """
    if isinstance(value, prim.FloatImm):
        exact = np.float32(value.value).view(np.uint32)
        return None if exact & 0xFFFF else tirx.const(int(exact >> 16), "uint16")
    if isinstance(value, prim.Select):
        true, false = _bits(value.true_value), _bits(value.false_value)
        return None if true is None or false is None else tirx.Select(value.condition, true, false)
    name = str(getattr(value.op, "name", "")) if isinstance(value, Call) else ""
    if name == "prim.if_then_else":
        true, false = _bits(value.args[1]), _bits(value.args[2])
        known = true is not None and false is not None
        return tirx.if_then_else(value.args[0], true, false) if known else None
    return bfloat16.widened(value) if name == "tirx.reinterpret" else None
