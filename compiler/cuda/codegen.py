"""From scheduled kernels to CUDA C++, and how TVM gets their machine code when it loads them.

TVM writes a GPU's kernels into a library as source.  Where its runtime for CUDA is loaded, it turns
source into machine code by a global function: as soon as a module is made (which is kept from it
here, as the source still lacks the prelude), and whenever a library is loaded.  Artifacts bring
their machine code along, and that function hands it over.
"""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Any

import tvm
from tvm.ir.transform import PassContext
from tvm.tirx import compilation_pipeline
from tvm.tirx.build import codegen_build
from tvm_ffi import get_global_func, register_global_func

from hybridc.compiler import settings
from hybridc.compiler.cuda import launches, prelude
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.target import Target

_CALLBACK = "tvm_callback_cuda_compile"
_KIND = "cuda"
# What the library that this thread is loading has for its GPU.
_MACHINE_CODE: ContextVar[bytes | None] = ContextVar("machine code", default=None)


def source(module: IRModule, target: Target) -> str:
    """The CUDA C++ of a module's kernels as the compiler gets it."""
    _, _, finalize = compilation_pipeline.get_tir_pipeline(launches.PIPELINE)
    functions = {
        tvm.ir.GlobalVar(str(func.attrs["global_symbol"])): func
        for func in launches.device_functions(module, target)
    }
    with PassContext(config=launches.config(target)), settings.cuda_kept_as_source():
        device = finalize()(tvm.IRModule(functions))
        return prelude.joined(codegen_build(device, target.tvm).inspect_source(_KIND))


def sources(module: Any) -> Iterator[str]:
    """The CUDA C++ in a compiled module and those that it imports, as TVM wrote it."""
    if str(module.kind) == _KIND:
        yield str(module.inspect_source(_KIND))
    for imported in module.imports:
        yield from sources(imported)


def load(library: str, machine_code: bytes) -> Any:
    """Load a shared library whose kernels for a GPU are this machine code."""
    with _handing_over(machine_code):
        return tvm.runtime.load_module(library)


@contextmanager
def _handing_over(machine_code: bytes) -> Generator[None]:
    _answer_tvm()
    before = _MACHINE_CODE.set(machine_code)
    try:
        yield
    finally:
        _MACHINE_CODE.reset(before)


@cache
def _answer_tvm() -> None:
    """From now on TVM asks here first for machine code."""
    from tvm.support import nvcc

    _ = nvcc  # registers TVM's own function
    otherwise = get_global_func(_CALLBACK)

    def machine_code_of(code: str) -> bytes:
        found = _MACHINE_CODE.get()
        return otherwise(code) if found is None else found

    register_global_func(_CALLBACK, machine_code_of, override=True)
