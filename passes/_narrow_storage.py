"""Loop nests whose arguments are kept in a narrower type than they are computed in."""

from collections.abc import Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import PrimFunc


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
