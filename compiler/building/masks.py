"""Numbers made of vectors of truth values, in a form that TVM's code generator takes.

It asks for the bounds of each value that a `let` binds, and fails on those of a comparison of
vectors wherever arithmetic leads to it, as in `sin(x * float(y > 0))`.  What a `Select` chooses by
is not asked for.
"""

from typing import Any

from tvm import tirx
from tvm.ir.transform import module_pass
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import rewrite_kernels


@module_pass(opt_level=0)
def select_numbers(module: IRModule, context: Any) -> IRModule:
    """Choose 1 or 0 by a vector of truth values instead of casting it."""
    return rewrite_kernels(module, _rewritten)


def _rewritten(func: tirx.PrimFunc) -> tirx.PrimFunc:
    body = structural_map(func.body, (tirx.Cast, _selected))
    return func if body.same_as(func.body) else func.with_body(body)


def _selected(cast: Any) -> Any:
    scalar, *lanes = str(cast.value.ty.dtype).split("x")
    if scalar != "bool" or not lanes:
        return cast
    one, zero = (
        tirx.Broadcast(tirx.const(number, str(cast.ty.dtype).split("x")[0]), int(lanes[0]))
        for number in (1, 0)
    )
    return tirx.Select(cast.value, one, zero)
