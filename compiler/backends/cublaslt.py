"""cuBLASLt, NVIDIA's library of matrix products, by torch's operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.backends import _patterns, _torch
from hybridc.compiler.backends._library import GpuLibrary
from hybridc.compiler.backends._torch import Head, Tensor
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.subgraph import Subgraph


@dataclass(frozen=True)
class Cublaslt(GpuLibrary):
    """Matrix products by cuBLASLt, with bias and ReLU in its epilogue."""

    def head(self, graph: Subgraph) -> Head | NotApplicable:
        """A product, plain or batched."""
        if graph.steps[0].operator != "matmul" or "nn.softmax" in graph.operators:
            return NotApplicable("it is not a matrix product alone")
        return _head(graph)


def _head(graph: Subgraph) -> Head:
    left, right = graph.steps[0].operands
    behind = _patterns.epilogue(graph)
    flat = len(graph.operands[left].shape) >= 2 and len(graph.operands[right].shape) == 2
    if not flat or behind.bias is None:
        return _torch.matmul_head(graph)
    relu = behind.relu and behind.other is None
    depth, columns = graph.operands[right].shape

    def prepare(constants: Sequence[Tensor | None]) -> Any:
        import torch

        name = "_addmm_activation" if relu else "addmm"
        return vars(torch)[name], _torch.bias_row(constants, behind.bias, graph)

    def run(values: Sequence[Tensor], prepared: Any, result: Tensor) -> Tensor:
        call, row = prepared
        rows, into = values[left].reshape(-1, depth), result.view(-1, columns)
        alone = len(graph.steps) == 2 + relu and into.dtype == rows.dtype
        product = (
            call(row, rows, values[right], out=into) if alone else call(row, rows, values[right])
        )
        return product.view(result.shape)

    return Head(2 + relu, prepare, run)
