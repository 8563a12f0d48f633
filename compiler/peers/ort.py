"""ONNX Runtime on its CPU provider."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hybridc.compiler.measurement.peer import Call, Peer, renamed
from hybridc.compiler.model import Feed


@dataclass(frozen=True)
class Ort(Peer):
    """ONNX Runtime with every graph optimisation, fp32 as the model says."""

    suffixes: ClassVar[tuple[str, ...]] = (".onnx",)
    packages: ClassVar[tuple[str, ...]] = ("onnxruntime",)

    def prepare(self, path: Path, feed: Feed, threads: int) -> Call:
        """Load the model on `threads` threads within operators, one between them."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
        by_name = renamed(feed, [port.name for port in session.get_inputs()])
        return lambda: session.run(None, by_name)
