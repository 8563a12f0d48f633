"""How much memory a call of the compiled model takes, read from the module that was planned."""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax, s_tir, sym, tirx
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler import dims
from hybridc.compiler.dims import Sizes
from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.ir.rewrite import bindings_of, operator, relax_functions
from hybridc.compiler.model import Array, TensorSpec, open_dims
from hybridc.compiler.text.units import format_size

# What of TVM's lowering decides where a kernel's own buffers lie and how large they are.
_LOWERING = (
    s_tir.transform.LowerInitBlock,
    s_tir.transform.PlanAndUpdateBufferAllocationLocation,
    s_tir.transform.ConvertBlocksToOpaque,
    s_tir.transform.CompactBufferAllocation,
    s_tir.transform.LowerMatchBuffer,
    s_tir.transform.LowerOpaqueBlock,
)
_PRODUCTS = ("matmul", "nn.conv1d", "nn.conv2d", "nn.conv3d")
_SPREADING = ("broadcast_to", "expand_dims", "full", "ones", "repeat", "reshape", "tile", "zeros")


@dataclass(frozen=True)
class Memory:
    """Bytes that one call holds at its peak, by what they are for.

    `activations` are the storages that intermediate tensors share, all of which the runtime keeps
    from its first call on; `unshared` is what these tensors would take if none shared.
    `workspace` is what the kernel that needs most of it takes for itself, on all threads.
    Inputs count once, though a caller's array may be used where it lies.
    """

    weights: int
    inputs: int
    outputs: int
    activations: int
    unshared: int
    workspace: int

    @property
    def peak(self) -> int:
        """All together, at most."""
        return self.weights + self.inputs + self.outputs + self.activations + self.workspace

    def text(self) -> str:
        """`peak memory 107.1 MB: weights 97.09 MB, activations …`."""
        parts = {
            "weights": self.weights,
            "activations": self.activations,
            "workspace": self.workspace,
            "inputs and outputs": self.inputs + self.outputs,
        }
        listed = ", ".join(f"{name} {format_size(size)}" for name, size in parts.items())
        return (
            f"peak memory {format_size(self.peak)}: {listed}"
            f" ({format_size(self.unshared)} of activations if none shared storage)"
        )

    def to_json(self) -> dict[str, int]:
        """The bytes as JSON data."""
        return {"peak": self.peak, **asdict(self)}


def usage(
    module: IRModule,
    weights: Mapping[str, Array],
    inputs: Iterable[TensorSpec],
    outputs: Iterable[TensorSpec],
    threads: int,
) -> Memory:
    """Count a module whose memory the pipeline has planned; 0 for what it left unplanned.

    Open sizes are those to measure at.
    """
    inputs, outputs = tuple(inputs), tuple(outputs)
    at = dims.nominal(open_dims(inputs))
    functions = [func for _, func in relax_functions(module)]
    storages, tensors = map(sum, zip(*(_allocations(each, at) for each in functions), strict=True))
    opened = at or any(dims.is_open(spec.shape) for spec in outputs)
    kernels = [func for func in module.functions.values() if isinstance(func, tirx.PrimFunc)]
    return Memory(
        weights=sum(array.nbytes for array in weights.values()),
        inputs=sum(_size(spec.at(at)) for spec in inputs),
        outputs=max(_returned(f, at) for f in functions) if opened else sum(map(_size, outputs)),
        activations=storages,
        unshared=tensors,
        workspace=max((workspace(kernel, threads) for kernel in kernels), default=0),
    )


def largest(module: IRModule, at: Sizes) -> tuple[int, str]:
    """Of the tensors that a graph computes, the one that takes most: its bytes, and its shape.

    A product, which nothing is fused into, counts with what it multiplies.  What only spreads
    numbers counts for nothing: whoever reads it may do without.
    """
    found = (0, "")
    bindings = (each for _, func in relax_functions(module) for each in bindings_of(func))
    for binding in bindings:
        name, kind = operator(binding.value), binding.var.ty
        if name in _SPREADING or not isinstance(kind, relax.TensorType) or kind.shape is None:
            continue
        tensors = [kind, *(arg.ty for arg in binding.value.args)] if name in _PRODUCTS else [kind]
        size = sum(_bytes(each.shape.values, each.dtype, at) for each in tensors)
        shape = ",".join(str(_number(extent, at)) for extent in kind.shape.values)
        found = max(found, (size, f"{kind.dtype}[{shape}]"))
    return found


def _allocations(main: Any, at: Sizes) -> tuple[int, int]:
    """Bytes of all storages, and of all tensors that lie in them.

    Of open sizes without an upper bound no storage is planned; each tensor is one of its own.
    """
    storages, tensors = [0], [0]

    def visit(call: Any) -> None:
        name = getattr(call.op, "name", "")
        if name == "relax.memory.alloc_storage":
            storages.append(prod(_number(size, at) for size in call.args[0].values))
        elif name == "relax.memory.alloc_tensor":
            tensors.append(_bytes(call.args[2].values, call.args[3].value, at))
        elif name == "relax.builtin.alloc_tensor" and at:
            size = _bytes(call.args[0].values, call.args[1].value, at)
            storages.append(size)
            tensors.append(size)

    structural_walk(main.body, (relax.Call, visit))
    return sum(storages), sum(tensors)


def _returned(main: Any, at: Sizes) -> int:
    """Bytes of what a function returns."""
    kind = main.ret_ty
    fields = getattr(kind, "fields", None) or [kind]
    return sum(
        _bytes(field.shape.values, field.dtype, at)
        for field in fields
        if isinstance(field.shape, relax.ShapeExpr)  # else one of its branches tells
    )


def workspace(kernel: PrimFunc, threads: int) -> int:
    """Bytes of a kernel's own buffers; those within a parallel loop once for each thread.

    What is as large as an open size of the kernel is left out.
    """
    if is_bound(kernel):
        return sum(_bytes(buffer.shape, buffer.dtype) for buffer in kept_between_launches(kernel))
    lowered = plain_loops(kernel)
    shared: list[Any] = []
    private: list[Any] = []
    structural_walk(lowered.body, (tirx.AllocBuffer, lambda node: shared.append(node.buffer)))

    def visit(loop: Any) -> None:
        if loop.kind == tirx.ForKind.PARALLEL:
            structural_walk(loop.body, (tirx.AllocBuffer, lambda node: private.append(node.buffer)))

    structural_walk(lowered.body, (tirx.For, visit))
    once, again = (sum(_bytes(b.shape, b.dtype) for b in buffers) for buffers in (shared, private))
    return once + again * (threads - 1)


def plain_loops(kernel: PrimFunc) -> PrimFunc:
    """The kernel without blocks: its own buffers lie where they are needed, as large as needed."""
    lowering = tvm.transform.Sequential([make() for make in _LOWERING])
    made: PrimFunc = lowering(tvm.IRModule({"main": kernel}))["main"]
    return made


def bytes_of(buffers: Iterable[Any]) -> int:
    """Bytes of buffers; those whose size is not known count for nothing."""
    return sum(_bytes(buffer.shape, buffer.dtype) for buffer in buffers)


def _bytes(shape: Iterable[Any], dtype: Any, at: Sizes | None = None) -> int:
    """Bytes of a tensor, with open sizes by name; 0 if an extent is not known."""
    return prod(_number(extent, at or {}) for extent in shape) * _itemsize(str(dtype))


def _number(extent: Any, at: Sizes) -> int:
    """A size as a number; 0 if it is not known."""
    if isinstance(extent, int | tirx.IntImm):
        return int(extent)

    def variable(var: Any) -> Any:
        return tirx.const(at[var.name], "int64") if var.name in at else var

    found = sym.Analyzer().simplify(structural_map(extent, (tirx.Var, variable)))
    return int(found) if isinstance(found, tirx.IntImm) else 0


def is_bound(kernel: PrimFunc) -> bool:
    """Whether a kernel is bound to the threads of a GPU."""
    found: list[Any] = []
    bound = tirx.ForKind.THREAD_BINDING
    structural_walk(
        kernel.body,
        [
            (tirx.For, lambda loop: found.append(loop) if loop.kind == bound else None),
            (tirx.AttrStmt, lambda node: found.append(node) if _is_extent(node) else None),
        ],
    )
    return bool(found)


def _is_extent(node: Any) -> bool:
    return str(node.attr_key) == "thread_extent"


def kept_between_launches(kernel: PrimFunc) -> list[Any]:
    """The buffers that a GPU's kernel keeps in the GPU's memory between its launches."""
    found: list[Any] = []
    structural_walk(
        kernel.body,
        [
            (s_tir.SBlock, lambda block: found.extend(block.alloc_buffers)),
            (tirx.AllocBuffer, lambda node: found.append(node.buffer)),
        ],
    )
    return [buffer for buffer in found if buffer.scope() in ("", "global")]


def _size(spec: TensorSpec) -> int:
    return prod(spec.fixed) * _itemsize(spec.dtype)


def _itemsize(dtype: str) -> int:
    importlib.import_module("ml_dtypes")  # teaches numpy the names bfloat16, float8_…
    return np.dtype(dtype).itemsize
