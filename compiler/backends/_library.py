"""What the libraries share that compute a subgraph by torch's operators."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from hybridc.compiler.backends import _torch
from hybridc.compiler.backends._torch import Head, TorchCall
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.backend import Backend, Call
from hybridc.compiler.offload.subgraph import Subgraph
from hybridc.compiler.target import CUDA, Target


@dataclass(frozen=True)
class TorchLibrary(Backend, ABC):
    """A library that is told by a head what it computes of a subgraph, and in which types."""

    packages: ClassVar[tuple[str, ...]] = ("torch",)

    @abstractmethod
    def head(self, graph: Subgraph) -> Head | NotApplicable:
        """What it computes at one go, or why nothing."""

    @abstractmethod
    def types(self, graph: Subgraph) -> Sequence[str]:
        """The types that its operands and results may have."""

    def supports(self, graph: Subgraph, target: Target) -> NotApplicable | None:
        """Take what has a head, with elementwise operators behind it."""
        head = self.head(graph)
        if isinstance(head, NotApplicable):
            return head
        return _torch.unsupported(graph, head.steps, self.types(graph))

    def build(self, graph: Subgraph, threads: int) -> Call:
        """A call of torch's operators."""
        head = self.head(graph)
        if isinstance(head, NotApplicable):
            raise ValueError(head.reason)
        return TorchCall(graph, head, threads)


@dataclass(frozen=True)
class GpuLibrary(TorchLibrary, ABC):
    """A library of NVIDIA GPUs."""

    device: ClassVar[str] = CUDA
    overhead: ClassVar[float] = 1e-5  # a launch by way of Python

    @classmethod
    def missing(cls) -> str:
        """Why torch computes nothing on a GPU here."""
        if absent := super().missing():
            return absent
        import torch

        if torch.version.cuda is None:
            return f"torch {torch.__version__} is a build without CUDA"
        if not torch.cuda.is_available():
            return f"torch {torch.__version__} finds no GPU that it can use"
        return ""

    def types(self, graph: Subgraph) -> Sequence[str]:
        """Floats of 16 and 32 bits."""
        return "float16", "bfloat16", "float32"
