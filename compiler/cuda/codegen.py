"""From scheduled kernels to CUDA C++, and how TVM finds their machine code when they are run.

TVM keeps a GPU's kernels as source, and asks a global function for machine code when it loads
them.  Artifacts bring that along: the function looks it up by the source.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

import tvm
from tvm.ir.transform import PassContext
from tvm.tirx import compilation_pipeline
from tvm.tirx.build import codegen_build
from tvm_ffi import get_global_func, register_global_func

from hybridc.compiler.cuda import launches, prelude
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.target import Target

_CALLBACK = "tvm_callback_cuda_compile"
_KIND = "cuda"


def source(module: IRModule, target: Target) -> str:
    """The CUDA C++ of a module's kernels as the compiler gets it."""
    _, _, finalize = compilation_pipeline.get_tir_pipeline(launches.PIPELINE)
    functions = {
        tvm.ir.GlobalVar(str(func.attrs["global_symbol"])): func
        for func in launches.device_functions(module, target)
    }
    with PassContext(config=launches.config(target)):
        device = finalize()(tvm.IRModule(functions))
        return prelude.joined(codegen_build(device, target.tvm).inspect_source(_KIND))


def sources(module: Any) -> Iterator[str]:
    """The CUDA C++ in a compiled module and those that it imports, as TVM wrote it."""
    if str(module.kind) == _KIND:
        yield str(module.inspect_source(_KIND))
    for imported in module.imports:
        yield from sources(imported)


def provide(code: str, cubin: bytes) -> None:
    """Let TVM load this machine code wherever it meets the source in this process."""
    _shelf()[code.strip()] = cubin


def provided(module: Any) -> bytes:
    """The machine code that was provided for a compiled module, which has one source at most."""
    return b"".join(_shelf()[code.strip()] for code in sources(module))


@cache
def _shelf() -> dict[str, bytes]:
    """The machine code by source; from now on TVM asks here first."""
    from tvm.support import nvcc

    _ = nvcc  # registers TVM's own function
    made: dict[str, bytes] = {}
    otherwise = get_global_func(_CALLBACK)

    def look_up(code: str) -> bytes:
        found = made.get(code.strip())
        return otherwise(code) if found is None else found

    register_global_func(_CALLBACK, look_up, override=True)
    return made
