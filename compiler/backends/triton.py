"""Matrix products in Triton, for shapes that libraries have no good kernel for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.backends import _patterns, _torch
from hybridc.compiler.backends._library import GpuLibrary
from hybridc.compiler.backends._torch import Head, Tensor
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.subgraph import Subgraph


@dataclass(frozen=True)
class Triton(GpuLibrary):
    """A product of rows and a matrix by a kernel in Triton, with bias and ReLU."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "triton")
    overhead: ClassVar[float] = 2 * GpuLibrary.overhead  # its launcher is Python too

    def head(self, graph: Subgraph) -> Head | NotApplicable:
        """A product by a matrix."""
        first = graph.steps[0]
        if first.operator != "matmul" or "nn.softmax" in graph.operators:
            return NotApplicable("it is not a matrix product alone")
        left, right = (graph.operands[number].shape for number in first.operands)
        if len(left) < 2 or len(right) != 2:
            return NotApplicable("it is not a product of rows and a matrix")
        return _head(graph)


def _head(graph: Subgraph) -> Head:
    left, right = graph.steps[0].operands
    behind = _patterns.epilogue(graph)
    relu = behind.relu and behind.other is None
    steps = 1 + (behind.bias is not None) + relu
    depth, columns = graph.operands[right].shape
    shape = graph.steps[0].shape

    def prepare(constants: Sequence[Tensor | None]) -> Any:
        from hybridc.compiler.backends import _triton_matmul

        return _triton_matmul.multiply, _torch.bias_row(constants, behind.bias, graph)

    def run(values: Sequence[Tensor], prepared: Any, result: Tensor) -> Tensor:
        multiply, row = prepared
        rows = values[left].reshape(-1, depth)
        into = result if len(graph.steps) == steps else result.new_empty(shape)
        multiply(rows, values[right].contiguous(), row, into.view(-1, columns), relu)
        return into

    return Head(steps, prepare, run)
