"""How a scheduled kernel is launched, read from what TVM lowers it to."""

from collections.abc import Mapping
from typing import Any

import tvm
from tvm import tirx
from tvm.ir.transform import PassContext
from tvm.tirx import compilation_pipeline
from tvm_ffi import structural_walk

from hybridc.compiler.cuda.resources import Launch, Sizes
from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.target import Target

PIPELINE = "s_tir"
_DEVICE_CALL = 2  # tvm::CallingConv::kDeviceKernelLaunch


def of_kernel(func: PrimFunc, target: Target) -> tuple[Launch, ...]:
    """The launches of a scheduled kernel, in the order of its code."""
    return of_module(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}), target)


def of_module(module: IRModule, target: Target) -> tuple[Launch, ...]:
    """The launches of all kernels of a module that is scheduled for a GPU."""
    return tuple(_launch(func) for func in device_functions(module, target))


def device_functions(module: IRModule, target: Target) -> list[PrimFunc]:
    """The functions that run on the GPU, as TVM lowers them."""
    kernels = {
        var: func for var, func in module.functions_items() if isinstance(func, tirx.PrimFunc)
    }
    lower, _, _ = compilation_pipeline.get_tir_pipeline(PIPELINE)
    with PassContext(config=dict(config(target))):
        bound = tirx.transform.BindTarget(target.tvm)(tvm.IRModule(kernels))
        lowered = lower(bound)
    return [
        func
        for _, func in lowered.functions_items()
        if int(func.attrs.get("calling_conv", 0)) == _DEVICE_CALL
    ]


def config(target: Target) -> dict[str, Any]:
    """How TVM shall lower code for a target."""
    # LLVM finds common subexpressions better, and in a fraction of the time.
    return {} if target.gpu else {"tirx.disable_cse_tir": True}


def _launch(func: PrimFunc) -> Launch:
    extents: dict[str, int] = {}
    shared: list[int] = []

    def attribute(node: Any) -> None:
        if node.attr_key == "thread_extent":
            extents[str(node.node.thread_tag)] = int(node.value)

    def allocation(node: Any) -> None:
        if node.buffer.scope().startswith("shared"):
            bits = tvm.DataType(str(node.buffer.dtype))
            size = 1
            for extent in node.buffer.shape:
                size *= int(extent)
            shared.append(size * bits.bits * bits.lanes // 8)

    structural_walk(func.body, [(tirx.AttrStmt, attribute), (tirx.AllocBuffer, allocation)])
    name = str(func.attrs["global_symbol"])
    grid, threads = (_extents(extents, kind) for kind in ("blockIdx", "threadIdx"))
    return Launch(name, grid, threads, sum(shared))


def _extents(extents: Mapping[str, int], kind: str) -> Sizes:
    x, y, z = (extents.get(f"{kind}.{axis}", 1) for axis in "xyz")
    return x, y, z
