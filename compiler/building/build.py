"""From a scheduled module to a shared library and the weights that it runs on."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir.transform import Sequential, module_pass
from tvm.runtime import Executable
from tvm_ffi import structural_map

from hybridc.compiler import settings
from hybridc.compiler.aot.join import join
from hybridc.compiler.aot.parts import is_part
from hybridc.compiler.building import inlining, link
from hybridc.compiler.building.stack import TIR_PIPELINE
from hybridc.compiler.building.weights import lift_weights
from hybridc.compiler.cuda import launches, resources, toolchain
from hybridc.compiler.cuda.resources import Usage
from hybridc.compiler.cuda.toolchain import Compiled
from hybridc.compiler.delegation.regions import lift
from hybridc.compiler.errors import PassError, described
from hybridc.compiler.filesystem import scratch
from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.ir.rewrite import updated
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

# What kernels may assume of their arguments' addresses, in bytes: what numpy's arrays have.
# Vectors off their own boundary cost little where they come from memory; a copied input costs much.
ALIGNMENT = 16


@dataclass(frozen=True)
class Built:
    """A shared library with a virtual machine's `main(inputs..., weights)`, and these weights.

    `weights` is the function's last argument, a tuple in the order of the mapping.  Where the
    model has regions, a tuple of their functions goes before it.  `device` is the machine code of
    a GPU's kernels, and `usages` are what each of them takes.
    """

    library: bytes
    weights: dict[str, Array]
    device: bytes = b""
    usages: Mapping[str, Usage] = field(default_factory=dict[str, Usage])


def build(module: IRModule, target: Target, regions: Sequence[str] = ()) -> Built:
    """Generate code for every kernel of a module that the pipeline has finished.

    `regions` are the names of those that it may call.  Raises PassError if no code can be
    generated for a kernel, or the code cannot be linked; InputError if there is no room for it.
    """
    return begin(module, target, regions).finish()


def begin(module: IRModule, target: Target, regions: Sequence[str] = ()) -> "Begun":
    """The part of `build` that is TVM's; two threads cannot do it at once."""
    module, weights = lift_weights(lift(_aligned_as_inputs(module), regions))
    if target.gpu is None:
        module = join(module, target)
    try:
        config = launches.config(target)
        with tvm.transform.PassContext(config=config), _kept_as_source(target):
            executable = tvm.compile(
                module,
                target=inlining.target_for(target),
                relax_pipeline=_virtual_machine,
                tir_pipeline=TIR_PIPELINE,
            )
    except Exception as error:  # TVM raises errors of many kinds
        raise PassError(f"no code can be generated: {described(error)}") from error
    return Begun(executable, weights, target)


@dataclass(frozen=True)
class Begun:
    """Generated code, which compilers of their own have yet to see."""

    executable: Any
    weights: dict[str, Array]
    target: Target

    def finish(self) -> Built:
        """Compile for the GPU and link; in any thread.  Raises PassError as `build` does."""
        link.check()
        scratch.check_space()
        device = _device_code(self.executable, self.target)
        with scratch.Folder() as folder:
            path = Path(folder) / "lib.so"
            try:
                # Where a line of TIR went is of no use to anyone, and as large as the code.
                options = ["-Wl,--strip-debug"]
                # A folder of TVM's own for objects would stay where the process is killed.
                self.executable.export_library(
                    str(path), fcompile=link.library, workspace_dir=folder, options=options
                )
            except (RuntimeError, OSError) as error:
                raise PassError(f"the C compiler could not link the kernels: {error}") from error
            usages = resources.read_log(device.log)
            return Built(path.read_bytes(), self.weights, device.cubin, usages)


def _device_code(executable: Any, target: Target) -> Compiled:
    """The machine code of a GPU's kernels, and the compiler's log; nothing for a CPU.

    Raises InputError if this host has no compiler for them, and PassError if it refuses.
    """
    if target.gpu is None:
        return Compiled(b"", "")
    from hybridc.compiler.cuda import codegen, prelude

    found = list(codegen.sources(executable.mod))
    if not found:  # a model that only moves its inputs
        return Compiled(b"", "")
    (source,) = found
    return toolchain.find().compile(prelude.joined(source), target.gpu.arch)


def _kept_as_source(target: Target) -> AbstractContextManager[None]:
    return settings.cuda_kept_as_source() if target.gpu else nullcontext()


def compile_kernel(func: PrimFunc, target: Target) -> Any:
    """Generate code for one kernel as for those of a model; TVM's executable with `main`.

    For a GPU it is a GpuExecutable, with the machine code.
    """
    module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    with _kept_as_source(target):
        executable = tvm.compile(module, target=target.tvm, tir_pipeline=TIR_PIPELINE)
    if target.gpu is None:
        return executable
    code = _device_code(executable, target)
    resources.check(resources.read_log(code.log), target.gpu)
    return GpuExecutable(executable.mod, code.cubin)


class GpuExecutable(Executable):
    """A kernel with host code to launch it and its machine code, to be exported or run here."""

    def __init__(self, mod: Any, device: bytes) -> None:
        super().__init__(mod)
        self.device = device
        self._loaded: Any = None

    def jit(self, **how: Any) -> Any:
        """The module that runs it, which is linked and loaded once."""
        from hybridc.compiler.cuda import codegen

        if self._loaded is None:
            with scratch.Folder() as folder:
                library = str(Path(folder) / "kernel.so")
                self.export_library(library, workspace_dir=folder, **how)
                self._loaded = codegen.load(library, self.device)
        return self._loaded


def _aligned_as_inputs(module: IRModule) -> IRModule:
    """The module with kernels that take arguments on any multiple of ALIGNMENT."""
    kernels = {
        var: _aligned(func)
        for var, func in module.functions_items()
        if isinstance(func, tirx.PrimFunc)
    }
    return updated(module, kernels)


def _aligned(func: PrimFunc) -> PrimFunc:
    buffers = {
        buffer: tirx.decl_buffer(
            buffer.shape, buffer.dtype, buffer.name, data_alignment=ALIGNMENT, span=buffer.span
        )
        for buffer in func.params
        if isinstance(buffer.ty, tirx.buffer.BufferType)
    }
    body = structural_map(func.body, (tvm.ir.Var, lambda var: buffers.get(var, var)))
    params = [buffers.get(param, param) for param in func.params]
    return tirx.PrimFunc(params, body, func.ret_type, func.attrs, func.span)


@module_pass(opt_level=0)
def _virtual_machine(module: IRModule, context: Any) -> IRModule:
    """The steps of TVM's default pipeline that follow memory planning."""
    transform = relax.transform
    return Sequential(
        [
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
            _hide_parts,
        ]
    )(module)


@module_pass(opt_level=0)
def _hide_parts(module: IRModule, context: Any) -> IRModule:
    """Take their symbols from functions that only other kernels call."""
    hidden = {
        var: func.without_attr("global_symbol")
        for var, func in module.functions_items()
        if is_part(func)
    }
    return updated(module, hidden)
