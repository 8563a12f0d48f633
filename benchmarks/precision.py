"""Trained models in int8: accuracy kept, and time beside ONNX Runtime in fp32.

`python benchmarks/precision.py --models digits,sentences`: two networks with weights that were
trained, each held to a limit on what it is for.  `--untimed` leaves out the clock, for a machine
that is not quiet, and then int8 is asked for outright.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridc.compiler import bench, driver, frontend
from hybridc.compiler.bench import Contender, Plan
from hybridc.compiler.contract import Contract
from hybridc.compiler.driver import Outcome
from hybridc.compiler.plans import Options
from hybridc.compiler.tables import table

THREADS = 2
EXAMPLES = Path(__file__).parent.parent / "examples"
# What int8's time shall be at most, as a ratio to ONNX Runtime's in fp32.
GOAL = 0.5
# A latency that nothing keeps: the cascade then goes to its last stage.
_AT_ONCE = "1ns"

Feed = Mapping[str, NDArray[Any]]
Validate = Callable[[Any], float]


@dataclass(frozen=True)
class Subject:
    """A trained model: its file, samples to calibrate on and to verify on, its figure and limit.

    The figure may `drop` by so much from the reference's, or shall be `least`.
    """

    name: str
    file: Path
    calibration: Sequence[Feed]
    validation: Sequence[Feed]
    figure: str
    validate: Validate
    drop: float | None = None
    least: float | None = None

    def contract(self, timed: bool) -> Contract:
        """The limit, and where the clock runs one on latency that makes the cascade go on."""
        return Contract(
            max_latency=_AT_ONCE if timed else None,
            validate=self.validate,
            max_drop=None if self.drop is None else {"validate": self.drop},
            min_accuracy=None if self.least is None else {"validate": self.least},
        )


def main(arguments: list[str] | None = None) -> None:
    """Compile the models and print the section."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", default="digits,sentences", help="with commas between")
    parser.add_argument("--untimed", action="store_true", help="accuracy alone")
    given = parser.parse_args(arguments)
    names = given.models.split(",")
    if unknown := set(names) - SUBJECTS.keys():
        parser.error(f"no model is named {', '.join(unknown)}; known: {', '.join(SUBJECTS)}")
    with tempfile.TemporaryDirectory(prefix="hybridc-") as folder:
        rows = [_row(SUBJECTS[name](Path(folder)), not given.untimed) for name in names]
    headers = ("model", "figure", "fp32", "limit", "int8", "products", "hybridc", "ort", "ratio")
    print(table(headers, rows))
    print(f"Goal: at most {GOAL} of ONNX Runtime's time in fp32, within the limit.")


def _row(subject: Subject, timed: bool) -> tuple[str, ...]:
    outcome = _compiled(subject, timed)
    operators = outcome.lowered.operators if outcome.lowered is not None else ()
    lowered = sum(each.lowered for each in operators)
    found = outcome.measured.accuracy["validate"].value
    dropped = outcome.measured.drop.get("validate")
    # A figure that compares with fp32 itself has the best there is in fp32.
    reference = 1.0 if dropped is None else found + dropped.value
    limit = f"drop {subject.drop:g}" if subject.drop is not None else f"at least {subject.least:g}"
    times = _times(subject, outcome) if timed else ("-", "-", "-")
    count = f"{lowered} of {len(operators)}"
    return (
        *(subject.name, subject.figure, f"{reference:.4f}", limit, f"{found:.4f}", count),
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
    verdict = "" if ratio <= GOAL else " **missed**"
    medians = (f"{each.samples.median * 1e3:.3f} ms" for each in (ours, theirs))
    return *medians, f"{ratio:.2f}{verdict}"


def digits(_: Path) -> Subject:
    """The convolutional network of the example: accuracy on images that calibrate nothing."""
    folder = EXAMPLES / "digits"
    images = np.load(folder / "digits-test.npz")["image"]
    labels = np.load(folder / "digits-test-labels.npz")["label"]
    feeds = [{"image": image[np.newaxis]} for image in images]
    half = len(feeds) // 4

    def accuracy(session: Any) -> float:
        right = [
            session.run(None, feed)[0].argmax() == label
            for feed, label in zip(feeds[half:], labels[half:], strict=True)
        ]
        return float(np.mean(right))

    file = folder / "digits.onnx"
    return Subject("digits", file, feeds[:half], feeds[half:], "accuracy", accuracy, drop=0.005)


def sentences(folder: Path) -> Subject:
    """The sentence encoder: rank correlation of similarities with those that torch computes."""
    sys.path.insert(0, str(EXAMPLES / "sentences"))
    import export
    import run
    from scipy.stats import spearmanr

    file = folder / "sentences.onnx"
    export.export(export.Encoder().eval(), file)
    lines = (EXAMPLES / "sentences/sentences.txt").read_text().splitlines()
    tokens = run.tokenise(lines)
    wanted = np.concatenate([run.embed(vectors, feed) for vectors, feed in run.judged(tokens)])
    above = np.triu_indices(len(lines), 1)

    def correlation(session: Any) -> float:
        found = [run.embed(session.run(None, feed)[0], feed) for feed in tokens]
        ours = np.concatenate(found)
        return float(spearmanr((ours @ ours.T)[above], (wanted @ wanted.T)[above]).statistic)

    return Subject(
        "sentences", file, tokens[::2], tokens[1::2], "Spearman", correlation, least=0.99
    )


SUBJECTS: dict[str, Callable[[Path], Subject]] = {"digits": digits, "sentences": sentences}


if __name__ == "__main__":
    main()
