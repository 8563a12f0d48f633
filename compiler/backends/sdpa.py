"""Attention by torch's scaled-dot-product attention, which chooses among several kernels."""

from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.backends import _cuda, _torch
from hybridc.compiler.backends._torch import TorchCall
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.backend import Backend, Call
from hybridc.compiler.offload.subgraph import Subgraph
from hybridc.compiler.target import CUDA, Target


@dataclass(frozen=True)
class Sdpa(Backend):
    """Scores, softmax and weighted values as one kernel of torch's, with transposes around them."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)
    device: ClassVar[str] = CUDA
    overhead: ClassVar[float] = _cuda.OVERHEAD

    @classmethod
    def missing(cls) -> str:
        """Why torch computes nothing on a GPU here."""
        return _cuda.missing(super().missing())

    def supports(self, graph: Subgraph, target: Target) -> NotApplicable | None:
        """Take attention of rank 4 with a scale and a mask that is added."""
        found = _torch.attention(graph)
        if isinstance(found, NotApplicable):
            return found
        return _torch.unsupported(graph, len(graph.steps), _cuda.TYPES)

    def build(self, graph: Subgraph, threads: int) -> Call:
        """A call of torch's attention."""
        found = _torch.attention(graph)
        if isinstance(found, NotApplicable):
            raise ValueError(found.reason)
        return TorchCall(graph, _torch.attention_head(found, len(graph.steps)), threads)
