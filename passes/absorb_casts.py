"""Let kernels widen what they read of 16 bits, instead of reading widened copies."""

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_walk

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.ir.rewrite import Expr, Graph, operator, rewrite, updated
from hybridc.passes._narrow_storage import is_product, on_narrow
from hybridc.passes._views import reshapes

_NARROW, _WIDE = ("float16", "bfloat16"), "float32"


@dataclass(frozen=True)
class AbsorbCasts(Pass):
    """Let kernels widen what they read of 16 bits, instead of reading widened copies.

    A norm or a reduction cannot be fused with what computes its input.  A cast between the two
    would therefore be stored: twice the bytes of what it casts.  Products keep the types of their
    operands, which say what multiplies them; views stay views.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every call of a loop nest that reads such a cast."""
        builder = relax.BlockBuilder(module)
        absorbed: dict[tuple[Any, tuple[str, ...]], Any] = {}

        def rule(value: Expr, graph: Graph) -> Expr | None:
            return _absorbed(module, value, graph, builder, absorbed)

        rewritten = rewrite(module, rule)
        if rewritten is module:
            return module
        functions = builder.get().functions_items()
        kernels = {var: func for var, func in functions if isinstance(func, tirx.PrimFunc)}
        return relax.transform.DeadCodeElimination()(updated(rewritten, kernels))


def _absorbed(
    module: IRModule, value: Expr, graph: Graph, builder: Any, known: dict[Any, Any]
) -> Expr | None:
    """The call on what is narrow; None where nothing it reads was widened."""
    if operator(value) != "call_tir" or value.args[0] not in module.functions:
        return None  # what was rewritten before reads no cast any more
    fields = list(value.args[1].fields)
    sources = [_widened(module, graph.value(field)) for field in fields]
    if not any(source is not None for source in sources):
        return None
    kernel = value.args[0]
    types = tuple("" if each is None else str(each.ty.dtype) for each in sources)
    if (kernel, types) not in known:
        func = module[kernel]
        made = _on_narrow(func, types) if not (is_product(func) or reshapes(func)) else None
        known[kernel, types] = None if made is None else builder.add_func(made, kernel.name_hint)
    if known[kernel, types] is None:
        return None
    pairs = zip(sources, fields, strict=True)
    arguments = [field if source is None else source for source, field in pairs]
    rest = [tvm.ir.Tuple(arguments), *value.args[2:]]
    return tvm.ir.Call(value.op, [known[kernel, types], *rest], value.attrs, value.ty_args)


def _on_narrow(func: PrimFunc, types: tuple[str, ...]) -> PrimFunc:
    for dtype in _NARROW:
        params = [param for param, each in zip(func.params, types, strict=False) if each == dtype]
        func = on_narrow(func, params, dtype) if params else func
    return func


def _widened(module: IRModule, value: Expr) -> Expr | None:
    """The tensor of 16 bits that a call does nothing to but cast it to float32."""
    if operator(value) != "call_tir" or str(getattr(value.ty, "dtype", "")) != _WIDE:
        return None
    if value.args[0] not in module.functions:
        return None
    fields = value.args[1].fields
    if len(fields) != 1 or str(getattr(fields[0].ty, "dtype", "")) not in _NARROW:
        return None
    return fields[0] if _is_cast(module[value.args[0]]) else None


def _is_cast(func: PrimFunc) -> bool:
    """Whether a loop nest stores each element of its first parameter in its place."""
    stores: list[Any] = []
    structural_walk(func.body, (tirx.BufferStore, stores.append))
    if len(stores) != 1 or not isinstance(stores[0].value, prim.Cast):
        return False
    load, indices = stores[0].value.value, stores[0].indices
    return (
        isinstance(load, TensorLoad)
        and load.source.same_as(func.params[0])
        and len(load.indices) == len(indices)
        and all(map(_same, load.indices, indices))
    )


def _same(one: Any, other: Any) -> bool:
    return bool(one.same_as(other))
