"""How much memory a call of the compiled model takes, read from the module that was planned."""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax, s_tir, tirx
from tvm_ffi import structural_walk

from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.model import Array, TensorSpec
from hybridc.compiler.units import format_size

# What of TVM's lowering decides where a kernel's own buffers lie and how large they are.
_LOWERING = (
    s_tir.transform.LowerInitBlock,
    s_tir.transform.PlanAndUpdateBufferAllocationLocation,
    s_tir.transform.ConvertBlocksToOpaque,
    s_tir.transform.CompactBufferAllocation,
    s_tir.transform.LowerMatchBuffer,
    s_tir.transform.LowerOpaqueBlock,
)


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
        told = ", ".join(f"{name} {format_size(size)}" for name, size in parts.items())
        return (
            f"peak memory {format_size(self.peak)}: {told}"
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
    """Count a module whose memory the pipeline has planned; 0 for what it left unplanned."""
    storages, tensors = _allocations(module["main"])
    kernels = [func for func in module.functions.values() if isinstance(func, tirx.PrimFunc)]
    return Memory(
        weights=sum(array.nbytes for array in weights.values()),
        inputs=sum(map(_size, inputs)),
        outputs=sum(map(_size, outputs)),
        activations=storages,
        unshared=tensors,
        workspace=max((workspace(kernel, threads) for kernel in kernels), default=0),
    )


def _allocations(main: Any) -> tuple[int, int]:
    """Bytes of all storages, and of all tensors that lie in them."""
    storages, tensors = [0], [0]

    def visit(call: Any) -> None:
        name = getattr(call.op, "name", "")
        if name == "relax.memory.alloc_storage":
            storages.append(prod(map(int, call.args[0].values)))
        elif name == "relax.memory.alloc_tensor":
            tensors.append(_bytes(call.args[2].values, call.args[3].value))

    structural_walk(main.body, (relax.Call, visit))
    return sum(storages), sum(tensors)


def workspace(kernel: PrimFunc, threads: int) -> int:
    """Bytes of a kernel's own buffers; those within a parallel loop once for each thread."""
    if is_bound(kernel):
        return sum(_bytes(buffer.shape, buffer.dtype) for buffer in kept_between_launches(kernel))
    lowered = tvm.transform.Sequential([make() for make in _LOWERING])(
        tvm.IRModule({"main": kernel})
    )["main"]
    shared: list[Any] = []
    private: list[Any] = []
    structural_walk(lowered.body, (tirx.AllocBuffer, lambda node: shared.append(node.buffer)))

    def visit(loop: Any) -> None:
        if loop.kind == tirx.ForKind.PARALLEL:
            structural_walk(loop.body, (tirx.AllocBuffer, lambda node: private.append(node.buffer)))

    structural_walk(lowered.body, (tirx.For, visit))
    once, again = (sum(_bytes(b.shape, b.dtype) for b in buffers) for buffers in (shared, private))
    return once + again * (threads - 1)


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


def _bytes(shape: Iterable[Any], dtype: Any) -> int:
    """Bytes of a tensor; 0 where an extent is not known."""
    extents = [int(e) if isinstance(e, int | tirx.IntImm) else 0 for e in shape]
    return prod(extents) * _itemsize(str(dtype))


def _size(spec: TensorSpec) -> int:
    return prod(spec.shape) * _itemsize(spec.dtype)


def _itemsize(dtype: str) -> int:
    importlib.import_module("ml_dtypes")  # teaches numpy the names bfloat16, float8_…
    return np.dtype(dtype).itemsize
