"""Let numpy multiply matrices: a backend in one file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.backend import Backend, Call
from hybridc.compiler.offload.subgraph import Subgraph
from hybridc.compiler.target import Target

# What it can compute of a subgraph, by the names of Relax.
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "matmul": np.matmul,
    "add": np.add,
    "multiply": np.multiply,
    "nn.relu": lambda x: np.maximum(x, 0),
}


@dataclass(frozen=True)
class NumpyProducts(Backend):
    """Products of fp32 matrices, and what follows them, by numpy and the BLAS that it brings."""

    packages: ClassVar[tuple[str, ...]] = ("numpy",)

    def supports(self, graph: Subgraph, target: Target) -> NotApplicable | None:
        """Take what is made of the functions above, in fp32."""
        if other := set(graph.operators) - FUNCTIONS.keys():
            return NotApplicable(f"it has {', '.join(sorted(other))}")
        if other := {each.dtype for each in (*graph.operands, *graph.steps)} - {"float32"}:
            return NotApplicable(f"it is in {', '.join(sorted(other))}")
        return None

    def build(self, graph: Subgraph, threads: int) -> Call:
        """Compute step by step; the threads are those of the BLAS."""

        def call(*tensors: Any) -> None:
            *values, result = map(np.from_dlpack, tensors)
            for step in graph.steps:
                operands = (values[number] for number in step.operands)
                values.append(FUNCTIONS[step.operator](*operands))
            result[...] = values[-1]

        return call
