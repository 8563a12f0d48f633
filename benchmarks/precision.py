"""Trained models in int8: accuracy kept, and time beside ONNX Runtime in fp32.

`python benchmarks/precision.py --models digits,sentences`: two networks with weights that were
trained, each held to a limit on what it is for.  `--untimed` leaves out the clock, for a machine
that is not quiet, and then int8 is asked for outright.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import command_line
import markdown
from subjects import SUBJECTS, Subject

from hybridc.compiler import driver, frontend
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.driver import Outcome
from hybridc.compiler.measurement import bench
from hybridc.compiler.measurement.bench import Contender, Plan

THREADS = 2
# What int8's time shall be at most, as a ratio to ONNX Runtime's in fp32.
GOAL = 0.5


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile the models and print the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="digits,sentences", help="with commas between")
    parser.add_argument("--untimed", action="store_true", help="accuracy alone")
    options = parser.parse_args(arguments)
    names = options.models.split(",")
    if unknown := set(names) - SUBJECTS.keys():
        parser.error(f"no model is named {', '.join(unknown)}; known: {', '.join(SUBJECTS)}")
    markdown.show(_table(names, not options.untimed))


def _table(names: Sequence[str], timed: bool) -> Iterator[str]:
    headers = ("model", "figure", "fp32", "limit", "int8", "products", "hybridc", "ort", "ratio")
    yield markdown.head(headers)
    with tempfile.TemporaryDirectory(prefix="hybridc-") as folder:
        for name in names:
            yield markdown.row(_row(SUBJECTS[name](Path(folder)), timed))
    yield f"* Goal: at most {GOAL} of ONNX Runtime's time in fp32, within the limit."


def _row(subject: Subject, timed: bool) -> tuple[str, ...]:
    outcome = _compiled(subject, timed)
    operators = outcome.sensitive.operators if outcome.sensitive is not None else ()
    lowered = sum(each.lowered for each in operators)
    found = outcome.measured.accuracy["validate"].value
    dropped = outcome.measured.drop.get("validate")
    # A figure that compares with fp32 itself has the best there is in fp32.
    reference = 1.0 if dropped is None else found + dropped.value
    times = _times(subject, outcome) if timed else ("-", "-", "-")
    count = f"{lowered} of {len(operators)}"
    return (
        *(subject.name, subject.figure, f"{reference:.4f}", subject.limit, f"{found:.4f}", count),
        *times,
    )


def _compiled(subject: Subject, timed: bool) -> Outcome:
    options = Options(
        threads=THREADS,
        dtype="auto" if timed else "int8",
        contract=subject.contract(timed),
        calibration=subject.calibration,
        validation=subject.validation,
    )
    return driver.compile_model(frontend.load(subject.file), options)


def _times(subject: Subject, outcome: Outcome) -> tuple[str, ...]:
    """Milliseconds of both, and the ratio of hybridc's to ONNX Runtime's."""
    with tempfile.TemporaryDirectory(prefix="hybridc-") as folder:
        artifact = Path(folder) / "model.hyb"
        outcome.artifact.save(artifact)
        contenders = [Contender("hybridc", artifact), Contender("ort", subject.file)]
        inputs = outcome.artifact.inputs
        ours, theirs = bench.compare(contenders, inputs, Plan(THREADS)).results
    ratio = ours.ratio(theirs)
    medians = (f"{each.samples.median * 1e3:.3f} ms" for each in (ours, theirs))
    return *medians, markdown.judged(f"{ratio:.2f}", ratio <= GOAL)


if __name__ == "__main__":
    command_line.run(main)
