"""The fastest candidate within a limit on accuracy, beside ONNX Runtime and OpenVINO."""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import data
import markdown
from subjects import AT_ONCE

from hybridc.compiler import driver, frontend
from hybridc.compiler.assurance import accuracy
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.measurement import bench
from hybridc.compiler.measurement.bench import Plan
from hybridc.compiler.orchestration.attempt import Outcome
from hybridc.compiler.runtime.session import InferenceSession

THREADS = 2
MODELS = ("resnet-50", "bert-base")
OURS, ORT, OPENVINO = "hybridc", "ort", "openvino{precision=default}"
# By limit on the cosine: what our time shall be at most of ONNX Runtime's, and of OpenVINO's.
GOALS = {0.999: (0.55, 0.95), 0.99: (0.35, None)}


def run(names: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    """The table row by row."""
    headers = ("model", "certified", "fresh data", "precision", OURS, "ONNX Runtime")
    yield markdown.head((*headers, "ratio", "OpenVINO", "ratio"))
    for name in names:
        for limit in GOALS:
            yield markdown.row(_row(name, limit, options.samples, Plan(THREADS)))
    yield "* Ratios are hybridc's time to the peer's; OpenVINO runs as it does by default."


def _row(name: str, limit: float, samples: int, plan: Plan) -> tuple[str, ...]:
    print(f"{name}, cosine >= {limit}", file=sys.stderr)
    source = data.named(name)
    outcome = compiled(source, Contract(AT_ONCE, min_accuracy={"cosine": limit}), samples)
    fresh = fresh_cosine(outcome, source, samples)
    certified = outcome.measured.accuracy["cosine"].low
    cells = (f"{certified:.6f}", f"{fresh.value:.6f}", precision_of(outcome))
    return (
        f"{name}, cosine ≥ {limit:g}",
        *cells,
        *_times(source.file, outcome, plan, GOALS[limit]),
    )


def precision_of(outcome: Outcome) -> str:
    """The precision, and how many products are in bytes."""
    precision = outcome.report.precision
    if outcome.sensitive is None:
        return precision
    operators = outcome.sensitive.operators
    return f"{precision}, {sum(each.lowered for each in operators)} of {len(operators)} products"


def compiled(source: data.Source, contract: Contract, samples: int) -> Outcome:
    """What the cascade comes to; where it keeps the contract or not, the best there is."""
    options = Options(
        threads=THREADS,
        contract=contract,
        calibration=source.samples(data.CALIBRATION, samples),
        validation=source.samples(data.VALIDATION, samples),
    )
    return driver.compile_source(source.file, options)


def fresh_cosine(outcome: Outcome, source: data.Source, samples: int) -> accuracy.Estimate:
    """The cosine on samples that neither calibrated nor verified."""
    model, session = frontend.load(source.file), InferenceSession(outcome.artifact, THREADS)
    feeds = source.samples(data.FRESH, samples)
    wanted = [model.reference(feed) for feed in feeds]
    got = [session.run(None, feed) for feed in feeds]
    return accuracy.estimate("cosine", wanted, got)


def _times(
    file: Path, outcome: Outcome, plan: Plan, goals: tuple[float | None, ...]
) -> tuple[str, ...]:
    with tempfile.TemporaryDirectory(prefix="hybridc-") as folder:
        artifact = Path(folder) / "model.hyb"
        outcome.artifact.save(artifact)
        found, skipped = bench.contenders([OURS, ORT, OPENVINO], [artifact, file])
        compared = bench.compare(found, outcome.artifact.inputs, plan, skipped)
    by = {each.peer: each for each in compared.results}
    ours = by[OURS]
    cells = [f"{ours.samples.median * 1e3:.3f} ms"]
    for peer, goal in zip((ORT, OPENVINO), goals, strict=True):
        if peer not in by:
            cells += [f"left out: {compared.skipped[peer]}", "-"]
            continue
        ratio = ours.ratio(by[peer])
        cell = f"{ratio:.2f}" + (f" (≤ {goal})" if goal else "")
        cells += [f"{by[peer].samples.median * 1e3:.3f} ms"]
        cells += [markdown.judged(cell, goal is None or ratio <= goal)]
    return tuple(cells)
