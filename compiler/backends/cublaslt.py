"""cuBLASLt, NVIDIA's library of matrix products, by torch's operators."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.backends import _torch
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
            return NotApplicable("it is no matrix product alone")
        return _head(graph)


def _head(graph: Subgraph) -> Head:
    left, right = graph.steps[0].operands
    follow = _torch.following(graph)
    flat = len(graph.operands[left].shape) >= 2 == len(graph.operands[right].shape)
    if not flat or follow.bias is None:
        return _plain(graph)
    relu = follow.relu and follow.other is None
    depth, columns = graph.operands[right].shape
    bias = follow.bias

    def prepare(constants: Sequence[Tensor | None]) -> Any:
        import torch

        held, functions = constants[bias], vars(torch)
        assert held is not None
        return functions["_addmm_activation" if relu else "addmm"], held.reshape(-1)

    def run(values: Sequence[Tensor], prepared: Any, result: Tensor) -> Tensor:
        call, row = prepared
        rows, into = values[left].reshape(-1, depth), result.view(-1, columns)
        alone = len(graph.steps) == 2 + relu
        made = call(row, rows, values[right], out=into) if alone else call(row, rows, values[right])
        return made.view(result.shape)

    return Head(2 + relu, prepare, run)


def _plain(graph: Subgraph) -> Head:
    """A product without more, right into the result's memory where nothing follows."""
    left, right = graph.steps[0].operands

    def prepare(_: Sequence[Tensor | None]) -> Any:
        import torch

        return torch.matmul

    def run(values: Sequence[Tensor], matmul: Any, result: Tensor) -> Tensor:
        if len(graph.steps) == 1:
            return matmul(values[left], values[right], out=result)
        return matmul(values[left], values[right])

    return Head(1, prepare, run)
