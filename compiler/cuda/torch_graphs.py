"""CUDA graphs by torch, for models some kernels of which are torch's own.

Torch then keeps what its kernels allocate for the graph alone.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.cuda.graphs import Record, Replay


def recorder(device: Any, usual: int) -> Record:
    """Records on a stream of torch's; `usual` is the one that TVM's kernels run on otherwise."""

    def record(work: Callable[[], Any]) -> tuple[Replay, Any]:
        import torch

        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(device.index)
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="relaxed"):
            device.set_raw_stream(stream.cuda_stream)
            try:
                result = work()
            finally:
                device.set_raw_stream(usual)
        return _Recorded(graph, device.index), result

    return record


@dataclass(frozen=True)
class _Recorded:
    """A graph of torch's, replayed where the session's own stream waits for it."""

    graph: Any
    index: int

    def replay(self) -> None:
        """Begin to run it, whichever stream the caller has."""
        import torch

        with torch.cuda.stream(torch.cuda.default_stream(self.index)):
            self.graph.replay()
