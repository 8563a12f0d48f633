"""Loop nests whose arguments are kept in a narrower type than they are computed in."""

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm.s_tir import SBlock
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.tensor_expressions import kinds_in


def on_narrow(func: PrimFunc, params: Sequence[Any], dtype: str) -> PrimFunc:
    """A loop nest that keeps some of its parameters in `dtype`.

    It widens what it reads of them to the type that they had, and rounds what it stores.
    """
    narrow = {param: param.with_dtype(dtype) for param in params}
    wide = {narrow[param]: str(param.dtype) for param in params}

    def widened(load: Any) -> Any:
        if load.source not in wide:
            return load
        return tirx.Cast(wide[load.source], tirx.BufferLoad(load.source, load.indices))

    def rounded(store: Any) -> Any:
        if store.buffer not in wide:
            return store
        return tirx.BufferStore(store.buffer, tirx.Cast(dtype, store.value), store.indices)

    callbacks = [
        (tvm.ir.Var, lambda var: narrow.get(var, var)),
        (TensorLoad, widened),
        (tirx.BufferStore, rounded),
    ]
    body = structural_map(func.body, callbacks)
    changed = [narrow.get(param, param) for param in func.params]
    return tirx.PrimFunc(changed, body, func.ret_type, func.attrs)


def is_product(func: PrimFunc) -> bool:
    """Whether a loop nest sums up products of two tensors; squares are of one."""
    blocks: list[Any] = []
    structural_walk(func.body, (SBlock, blocks.append))
    return any(kinds_in(func)) or any(map(_multiplies, blocks))


def _multiplies(block: Any) -> bool:
    kinds = [int(axis.iter_type) for axis in block.iter_vars]
    if tirx.IterVar.CommReduce not in kinds or not isinstance(block.body, tirx.BufferStore):
        return False
    value = block.body.value
    for term in (value.a, value.b) if isinstance(value, prim.Add) else ():
        if isinstance(term, prim.Mul):
            one, other = (_sources(factor) for factor in (term.a, term.b))
            if one and other and not any(x.same_as(y) for x, y in zip(one, other, strict=False)):
                return True
    return False


def _sources(value: Any) -> list[Any]:
    loads: list[Any] = []
    structural_walk(value, (TensorLoad, loads.append))
    return [load.source for load in loads]
