"""Keep the accumulators of kernels on the stack, where LLVM makes registers of them.

TVM takes every buffer above 1 KiB from a pool at run time.  The tiles of accumulators are larger
than that, and memory from a pool could be seen by others: LLVM then clears, loads and stores it,
and any call in the loop keeps it from holding a value in a register.
"""

from math import prod
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.transform import Sequential, module_pass
from tvm.tirx import compilation_pipeline
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.aot.checks import drop_checks
from hybridc.compiler.aot.parts import take_shares
from hybridc.compiler.building.masks import select_numbers
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import updated
from hybridc.compiler.ir.sequences import PLAIN_PIPELINE

# The name by which `tvm.compile` finds the pipeline.
TIR_PIPELINE = "hybridc"
# Bytes of one buffer; the stacks of threads have 8 MiB, the smallest in use 128 KiB.
_MOST = 16 * 2**10
_CPU = 1  # kDLCPU of DLPack
_KEEP = "disable_lower_builtin"  # TVM's name for what its lowering leaves alone


@module_pass(opt_level=0)
def _keep_on_stack(module: IRModule, context: Any) -> IRModule:
    """Mark the small buffers of known size, for TVM to leave them where LLVM puts them.

    Not those that a GPU's kernels read: no device reaches the host's stack.
    """
    functions = {
        var: func.with_body(structural_map(func.body, (tirx.AllocBuffer, _marked)))
        for var, func in module.functions_items()
        if isinstance(func, tirx.PrimFunc) and not _is_for_device(func)
    }
    return updated(module, functions)


def _is_for_device(func: tirx.PrimFunc) -> bool:
    found: list[int] = []

    def attribute(node: Any) -> None:
        if node.attr_key == "device_type":
            found.append(int(node.value))

    structural_walk(func.body, (tirx.AttrStmt, attribute))
    return any(kind != _CPU for kind in found)


def _marked(allocation: Any) -> Any:
    buffer = allocation.buffer
    if not all(isinstance(extent, tirx.IntImm) for extent in buffer.shape):
        return allocation
    element = tvm.DataType(str(buffer.dtype))
    size = prod(map(int, buffer.shape)) * element.lanes * element.bits // 8
    if not 0 < size <= _MOST:
        return allocation
    marks = {**dict(allocation.annotations), _KEEP: tirx.const(1, "bool")}
    return tirx.AllocBuffer(buffer, annotations=marks)


def _pipeline() -> tuple[Any, Any, Any]:
    """TVM's own lowering, with steps of ours before the last ones on the host."""
    lower, finalize_host, finalize_device = compilation_pipeline.PIPELINE_MAP[PLAIN_PIPELINE]()

    def finalize() -> Any:
        ours = [drop_checks, take_shares, _keep_on_stack, select_numbers]
        return Sequential([*ours, finalize_host()])

    return lower, finalize, finalize_device


def _vectorize_rounding() -> None:
    """Tell TVM that rounding takes vectors, as LLVM's does; a loop with it would be scalar."""
    rounding, like = (tvm.ir.Op.get(f"tirx.{name}") for name in ("nearbyint", "round"))
    rounding.set_attr("TVectorizable", like.get_attr("TVectorizable"))


compilation_pipeline.PIPELINE_MAP[TIR_PIPELINE] = _pipeline
_vectorize_rounding()
