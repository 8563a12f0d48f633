"""Let vendor libraries compute the kernels at which they were measured to be faster."""

from dataclasses import dataclass
from typing import Any

from hybridc.compiler.delegation import regions
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import tidy
from hybridc.compiler.kernel_record import KernelRecord
from hybridc.compiler.model import TensorSpec
from hybridc.compiler.offload import calls, match
from hybridc.compiler.offload.match import Found


@dataclass(frozen=True)
class Offload(Pass):
    """Let vendor libraries compute the kernels at which they were measured to be faster.

    The context's `backends` map a subgraph's key to the library that computes it; without them
    nothing changes.  A product and its epilogue become one call.  With `attention`, only scores,
    softmax and weighted values are matched, before they become one kernel of ours.
    """

    attention: bool = False

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Replace the bindings of each such kernel by a call of its name."""
        replaced: dict[Any, Any] = {}
        gone: set[Any] = set()
        for found in match.find(module, self.attention) if context.backends else ():
            backend = context.backends.get(found.graph.key)
            if backend is not None:
                offload = _named(found, backend, context)
                result = found.graph.result
                specs = [TensorSpec(offload.name, result.shape, result.dtype)]
                replaced[found.result] = regions.call(offload.name, found.operands, specs)
                gone |= {binding.var for binding in found.bindings[:-1]}
        return tidy(match.rewritten(module, replaced, gone)) if replaced else module


def _named(found: Found, backend: str, context: Context) -> calls.Offload:
    """The kernel under a name of its own, which the context gets to know."""
    graph = found.graph
    kind = "attention" if "nn.softmax" in graph.operators else graph.anchor.operator
    name = f"{backend}_{kind.rpartition('.')[2]}_{len(context.offloads)}"
    offload = calls.Offload(name, backend, graph)
    context.offloads.append(offload)
    precision = {"int32": "int8", "bfloat16": "bf16", "float16": "fp16"}
    dtype = precision.get(graph.anchor.dtype, "fp32")
    record = KernelRecord(name, backend, {}, {}, graph.flops, graph.bytes, dtype, graph.key)
    context.kernels.append(record)
    return offload
