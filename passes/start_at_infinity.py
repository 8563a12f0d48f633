"""Start maxima at minus infinity and minima at infinity."""

from dataclasses import dataclass
from math import inf
from typing import Any

from tvm import s_tir, tirx
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import updated

# What `decompose_reduction` calls the block that it makes of another's start.
_DECOMPOSED = "_init"


@dataclass(frozen=True)
class StartAtInfinity(Pass):
    """Start maxima at minus infinity and minima at infinity.

    TVM starts them at the largest finite numbers, and matches reductions by these, so this comes
    after scheduling.  Otherwise the maximum of infinities would be finite, and a row that attention
    masks entirely would not be recognised.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Change the start of every reduction, not what is computed with the same numbers."""
        kernels = {
            var: func.with_body(body)
            for var, func in module.functions_items()
            if isinstance(func, tirx.PrimFunc)
            and not (body := structural_map(func.body, (s_tir.SBlock, _block))).same_as(func.body)
        }
        return updated(module, kernels) if kernels else module


def _block(block: Any) -> Any:
    body, init = block.body, block.init
    if init is not None:
        init = structural_map(init, (tirx.BufferStore, _start))
    elif str(block.name_hint).endswith(_DECOMPOSED):
        body = structural_map(body, (tirx.BufferStore, _start))
    if body.same_as(block.body) and (init is None or init.same_as(block.init)):
        return block
    return s_tir.SBlock(
        block.iter_vars,
        block.reads,
        block.writes,
        block.name_hint,
        body,
        init,
        block.alloc_buffers,
        block.match_buffers,
        block.annotations,
    )


def _start(store: Any) -> Any:
    value = store.value
    if not isinstance(value, prim.FloatImm):
        return store
    dtype = str(value.ty.dtype)
    for extreme, start in ((tirx.min_value(dtype), -inf), (tirx.max_value(dtype), inf)):
        if value.value == extreme.value:
            return tirx.BufferStore(store.buffer, tirx.const(start, dtype), store.indices)
    return store
