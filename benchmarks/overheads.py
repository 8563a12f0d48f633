"""What a user waits for beside the model's own work: compiling, loading, calling, help."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import command_line
import models
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import hybridc

_REPEATS = 11
_CALLS = 3000


def run() -> str:
    """Measure each; return the table."""
    rows = [
        ("compile ResNet-50, from file to artifact, in a fresh process", compile_seconds(), 25.0),
        ("`hybridc --help`", help_seconds(), 0.3),
        ("load a 100 MB artifact (hashes checked, weights mapped)", load_seconds(), 0.15),
        ("one call of a trivial model, numpy in and out", call_seconds(), 40e-6),
    ]
    lines = ["| what | measured | asked for |", "|---|---|---|"]
    for name, seconds, most in rows:
        missed = " **missed**" if seconds > most else ""
        lines.append(f"| {name} | {_text(seconds)}{missed} | ≤ {_text(most)} |")
    return "\n".join(lines)


def compile_seconds() -> float:
    """Wall time of the command line, verification against the reference included."""
    source = models.onnx_file("resnet-50")
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "model.hyb")
        return _command(["compile", str(source), "-o", out], 3)


def help_seconds() -> float:
    """Wall time of `hybridc --help`."""
    return _command(["--help"], _REPEATS)


def load_seconds() -> float:
    """From path to a session that can run, with TVM imported and the file in the page cache."""
    weight = np.random.default_rng(0).random((5000, 5000), "float32")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.hyb"
        hybridc.compile(_model("MatMul", (1, 5000), weight)).save(path)
        return _median(lambda: hybridc.InferenceSession(path), _REPEATS)


def call_seconds() -> float:
    """Median time of one call of a model that adds two to four numbers."""
    session = hybridc.InferenceSession(
        hybridc.compile(_model("Add", (1, 4), np.full((1, 4), 2, "float32")))
    )
    feed = {"x": np.zeros((1, 4), "float32")}
    return _median(lambda: session.run(None, feed), _CALLS)


def _model(operator: str, shape: tuple[int, ...], weight: np.ndarray) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"])],
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def _command(arguments: list[str], repeats: int) -> float:
    script = os.path.join(os.path.dirname(sys.executable), "hybridc")
    return _median(
        lambda: subprocess.run([script, *arguments], check=True, capture_output=True), repeats
    )


def _median(call: Callable[[], object], repeats: int) -> float:
    seconds: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def _text(seconds: float) -> str:
    if seconds >= 1:
        return f"{seconds:.1f} s"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def main() -> None:
    """Print the table."""
    command_line.none(__doc__)
    print(run())


if __name__ == "__main__":
    command_line.run(main)
