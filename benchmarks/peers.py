"""Latency of whole models beside ONNX Runtime, OpenVINO, torch.compile and eager PyTorch.

Batch 1, fp32, 2 threads, no tuning; each peer in its own process, in turn.
"""

import sys
import tempfile
from pathlib import Path

import models

import hybridc
from hybridc.compiler import bench
from hybridc.compiler.bench import Comparison, Plan

THREADS = 2
# What each model's time shall be at most, as a ratio to the faster of these two.
RIVALS = ("ort", "openvino")
GOALS = {
    "resnet-50": 0.82,
    "resnet-18": 0.65,
    "mobilenet-v2": 0.90,
    "bert-base": 0.92,
    "vit-b16": 0.92,
    "convnext-t": 0.80,
}
PEERS = ("hybridc", "ort", "openvino", "inductor", "eager")


def run() -> str:
    """Compile and compare every model; return the table."""
    lines = [
        "Median latency in ms; in brackets hybridc's time as a ratio to that peer (median of the"
        " ratios within a round; below 1 hybridc is faster).",
        "",
        "| model | hybridc | spread | ONNX Runtime | OpenVINO | torch.compile | eager |"
        " to the faster of the first two | goal |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    notes: list[str] = []
    versions: dict[str, str] = {}
    for name in models.MODELS:
        comparison = compare(name)
        print(name, comparison.text(), sep="\n", file=sys.stderr)
        lines.append(row(name, comparison))
        if not comparison.quiet:
            notes.append(f"{name}: other programs kept {comparison.busy:.1f} cores busy.")
        for result in comparison.results:
            versions |= result.versions
        notes += [f"{name}: {peer} left out: {why}" for peer, why in comparison.skipped.items()]
    lines += ["", "Versions: " + ", ".join(f"{p} {n}" for p, n in versions.items()) + "."]
    return "\n".join([*lines, "", *notes])


def compare(name: str) -> Comparison:
    """Compile one model and time it beside its peers."""
    source = models.onnx_file(name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{name}.hyb"
        artifact = hybridc.compile(source, threads=THREADS)
        artifact.save(path)
        files = (path, source, models.torch_file(name))
        taking_part, skipped = bench.contenders(PEERS, files)
        return bench.compare(taking_part, artifact.inputs, Plan(THREADS), skipped)


def row(name: str, comparison: Comparison) -> str:
    """One line of the table."""
    found = {result.peer: result for result in comparison.results}
    ours = found[PEERS[0]]
    cells = [name, f"**{ours.samples.median * 1e3:.2f}**", f"{ours.samples.spread:.1%}"]
    for peer in PEERS[1:]:
        result = found.get(peer)
        cells.append(
            f"{result.samples.median * 1e3:.2f} ({ours.ratio(result):.2f})" if result else "-"
        )
    worst = max(ours.ratio(found[rival]) for rival in RIVALS if rival in found)
    missed = " **missed**" if worst > GOALS[name] else ""
    cells += [f"{worst:.2f}{missed}", f"≤ {GOALS[name]:.2f}"]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    print(run())
