"""Latency of whole models beside ONNX Runtime, OpenVINO, torch.compile and eager PyTorch.

`python benchmarks/peers.py --precision fp32 --batch 1 --models resnet-50,bert-base`: on 2 threads,
with no tuning; each peer in its own process, in turn, held to the precision that is asked for.
"""

import argparse
import datetime
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import command_line
import markdown
import models
from command_line import count

from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.measurement import bench, profile
from hybridc.compiler.measurement.bench import Comparison, Plan
from hybridc.compiler.runtime.session import InferenceSession

THREADS = 2
OURS = "hybridc"


@dataclass(frozen=True)
class Precision:
    """How a precision is asked of us (options of `hybridc compile`) and of the peers.

    `rivals` are those whose time is to be beaten.
    """

    options: tuple[str, ...]
    peers: tuple[str, ...]
    rivals: tuple[str, ...]


# OpenVINO's own default on CPUs with the instructions is bf16: fp32 has to be asked for.  ONNX
# Runtime's CPU provider computes in what the file says, and knows no bf16.
PRECISIONS: Mapping[str, Precision] = MappingProxyType(
    {
        "fp32": Precision((), ("ort", "openvino", "inductor", "eager"), ("ort", "openvino")),
        "bf16": Precision(
            ("--dtype", "bf16"),
            ("openvino{precision=bf16}",),
            ("openvino{precision=bf16}",),
        ),
        "int8": Precision((), ("ort", "openvino"), ("ort", "openvino")),
    }
)
TITLES = {
    "ort": "ONNX Runtime",
    "openvino": "OpenVINO",
    "openvino{precision=bf16}": "OpenVINO bf16",
    "inductor": "torch.compile",
    "eager": "eager",
}
# What each model's time shall be at most, as a ratio to the faster rival, in fp32 and else.
GOALS = {
    "resnet-50": 0.82,
    "resnet-18": 0.65,
    "mobilenet-v2": 0.90,
    "bert-base": 0.92,
    "vit-b16": 0.92,
    "convnext-t": 0.80,
    "gpt2-step": 1.00,
}
_NARROW_GOAL = 0.95
_COMPILE_SECONDS = 900


@dataclass(frozen=True)
class Part:
    """One table: a precision at a batch size."""

    precision: str
    batch: int

    @property
    def terms(self) -> Precision:
        """How the precision is asked for."""
        return PRECISIONS[self.precision]

    def file(self, name: str) -> Path:
        """The model as ONNX, exported and quantised where it is not there yet."""
        if self.precision == "int8":
            return models.quantised_file(name, self.batch)
        return models.onnx_file(name, self.batch)

    def goal(self, name: str) -> float:
        """The ratio to the faster rival that a model shall keep."""
        return GOALS.get(name, 1.0) if self.precision == "fp32" else _NARROW_GOAL


def run(part: Part, names: Sequence[str]) -> Iterator[str]:
    """Compile and compare the models; give the table row by row, each with notes on it."""
    headers = ["model", OURS, "spread", *(TITLES[peer] for peer in part.terms.peers)]
    headers += ["to the faster rival", "goal", "of roofline", "measured"]
    yield markdown.head(headers)
    for name in names:
        print(f"{name}, {part.precision}, batch {part.batch}", file=sys.stderr)
        try:
            cells, remarks = _measured(part, name)
        except HybridcError as error:
            cells, remarks = ["not measured", *["-"] * (len(headers) - 3)], [str(error)]
        yield markdown.row([name, *cells, str(datetime.date.today())])
        yield from (f"* {name}: {remark}" for remark in remarks)


def _measured(part: Part, name: str) -> tuple[list[str], list[str]]:
    """The cells of a model between its name and the date, and what to know of them."""
    source = part.file(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.hyb"
        _compile(source, path, part.terms.options)
        files = [path, source]
        if "eager" in part.terms.peers:
            files.append(models.torch_file(name, part.batch))
        artifact = Artifact.load(path)
        taking_part, skipped = bench.contenders([OURS, *part.terms.peers], files)
        comparison = bench.compare(taking_part, artifact.inputs, Plan(THREADS), skipped)
        print(comparison.text(), file=sys.stderr)
        limit = roofline(artifact)
    return _cells(part, name, comparison, limit), _remarks(comparison)


def _compile(source: Path, path: Path, options: Sequence[str]) -> None:
    """Compile by the command line, in a process of its own.

    Raises HybridcError with what it said where the model cannot be compiled.
    """
    call = [str(Path(sys.executable).with_name("hybridc")), "compile", str(source)]
    call += ["-o", str(path), "--threads", str(THREADS), *options]
    done = subprocess.run(
        call, check=False, capture_output=True, text=True, timeout=_COMPILE_SECONDS
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise HybridcError(f"not compiled: {lines[-1].removeprefix('hybridc: error: ')}")


def roofline(artifact: Artifact) -> float:
    """Seconds that the artifact's kernels take at least."""
    return profile.on_this_host(InferenceSession(artifact, THREADS), THREADS).limit


def _cells(part: Part, name: str, comparison: Comparison, limit: float) -> list[str]:
    found = {result.peer: result for result in comparison.results}
    if OURS not in found:
        raise HybridcError(f"not measured: {comparison.skipped[OURS]}")
    ours = found[OURS]
    cells = [f"**{ours.samples.median * 1e3:.2f}**", f"{ours.samples.spread:.1%}"]
    for peer in part.terms.peers:
        result = found.get(peer)
        cells.append(
            f"{result.samples.median * 1e3:.2f} ({ours.ratio(result):.2f})" if result else "-"
        )
    ratios = [ours.ratio(found[rival]) for rival in part.terms.rivals if rival in found]
    goal = part.goal(name)
    missed = " **missed**" if ratios and max(ratios) > goal else ""
    cells += [f"{max(ratios):.2f}{missed}" if ratios else "-", f"≤ {goal:.2f}"]
    return [*cells, f"{limit / ours.samples.median:.0%}" if limit else "-"]


def _remarks(comparison: Comparison) -> list[str]:
    remarks = [f"{peer} left out: {why}." for peer, why in comparison.skipped.items()]
    if not comparison.quiet:
        remarks.append(f"other programs kept {comparison.busy:.1f} cores busy.")
    versions: dict[str, str] = {}
    for result in comparison.results:
        versions |= result.versions
    remarks.append(", ".join(f"{package} {number}" for package, number in versions.items()) + ".")
    return remarks


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--batch", type=count, default=1)
    parser.add_argument("--models", default=",".join(models.MODELS))
    options = parser.parse_args()
    names = options.models.split(",")
    if unknown := [name for name in names if name not in models.MODELS]:
        parser.error(f"no model is named {', '.join(unknown)}; known: {', '.join(models.MODELS)}")
    markdown.show(run(Part(options.precision, options.batch), names))


if __name__ == "__main__":
    command_line.run(main)
