"""OpenVINO's CPU plug-in."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hybridc.compiler.measurement.peer import Call, Peer, renamed
from hybridc.compiler.model import Feed


@dataclass(frozen=True)
class Openvino(Peer):
    """OpenVINO for latency; `precision` is f32 unless asked, since its own default may be bf16.

    `default` leaves the precision to it.
    """

    suffixes: ClassVar[tuple[str, ...]] = (".onnx", ".xml")
    packages: ClassVar[tuple[str, ...]] = ("openvino",)

    precision: str = "f32"

    def prepare(self, path: Path, feed: Feed, threads: int) -> Call:
        """Load the model, fix its shapes to those of `feed`, compile it for `threads` threads."""
        import openvino

        core = openvino.Core()
        model = core.read_model(str(path))
        by_name = dict(renamed(feed, [port.any_name for port in model.inputs]))
        model.reshape({name: openvino.PartialShape(array.shape) for name, array in by_name.items()})
        hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
        if self.precision != "default":
            hints["INFERENCE_PRECISION_HINT"] = self.precision
        request = core.compile_model(model, "CPU", hints).create_infer_request()
        return lambda: request.infer(by_name)
