"""Attention by torch's scaled-dot-product attention, which chooses among several kernels."""

from dataclasses import dataclass

from hybridc.compiler.backends import _torch
from hybridc.compiler.backends._library import GpuLibrary
from hybridc.compiler.backends._torch import Head
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.subgraph import Subgraph


@dataclass(frozen=True)
class Sdpa(GpuLibrary):
    """Scores, softmax and weighted values as one kernel of torch's, with transposes around them."""

    def head(self, graph: Subgraph) -> Head | NotApplicable:
        """Attention of rank 4 with a scale and a mask that is added."""
        return _torch.attention_head(graph)
