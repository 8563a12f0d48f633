"""Matrix products in Triton, for shapes that libraries have no good kernel for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.compiler.backends import _cuda, _torch
from hybridc.compiler.backends._torch import Head, Tensor, TorchCall
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.backend import Backend, Call
from hybridc.compiler.offload.subgraph import Subgraph
from hybridc.compiler.target import CUDA, Target


@dataclass(frozen=True)
class Triton(Backend):
    """A product of rows and a matrix by a kernel in Triton, with bias and ReLU."""

    packages: ClassVar[tuple[str, ...]] = ("torch", "triton")
    device: ClassVar[str] = CUDA
    overhead: ClassVar[float] = 2 * _cuda.OVERHEAD  # its launcher is Python too

    @classmethod
    def missing(cls) -> str:
        """Why torch computes nothing on a GPU here, or Triton is not there."""
        return _cuda.missing(super().missing())

    def supports(self, graph: Subgraph, target: Target) -> NotApplicable | None:
        """Take a product by a matrix."""
        first = graph.steps[0]
        if first.operator != "matmul" or "nn.softmax" in graph.operators:
            return NotApplicable("it is no matrix product alone")
        left, right = (graph.operands[number].shape for number in first.operands)
        if len(left) < 2 or len(right) != 2:
            return NotApplicable("it is no product of rows by a matrix")
        return _torch.unsupported(graph, _head(graph).steps, _cuda.TYPES)

    def build(self, graph: Subgraph, threads: int) -> Call:
        """A launch of the kernel."""
        return TorchCall(graph, _head(graph), threads)


def _head(graph: Subgraph) -> Head:
    left, right = graph.steps[0].operands
    follow = _torch.following(graph)
    relu = follow.relu and follow.other is None
    steps = 1 + (follow.bias is not None) + relu
    depth, columns = graph.operands[right].shape
    shape = graph.steps[0].shape

    def prepare(constants: Sequence[Tensor | None]) -> Any:
        from hybridc.compiler.backends import _triton_matmul

        row = None if follow.bias is None else constants[follow.bias]
        return _triton_matmul.multiply, None if row is None else row.reshape(-1)

    def run(values: Sequence[Tensor], prepared: Any, result: Tensor) -> Tensor:
        multiply, row = prepared
        rows = values[left].reshape(-1, depth)
        into = result if len(graph.steps) == steps else result.new_empty(shape)
        multiply(rows, values[right].contiguous(), row, into.view(-1, columns), relu)
        return into

    return Head(steps, prepare, run)
