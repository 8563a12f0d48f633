"""One trained model, one limit: hybridc, and rivals that keep a limit on a figure too.

Rivals quantise in an interpreter where they are installed: this one, or that of `--rivals`, of an
environment of their own, since they want other versions of what is here.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import markdown
import numpy as np
from subjects import SUBJECTS, Feed, Subject

from hybridc.compiler import driver, frontend
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.measurement import bench
from hybridc.compiler.measurement.bench import Comparison, Contender, Plan

THREADS = 2
MODELS = ("digits", "sentences")
# By rival: the package that it needs, and the peer that runs what it makes.
RIVALS: Mapping[str, tuple[str, str]] = {
    "nncf": ("nncf", "openvino{precision=default}"),
    "olive": ("olive", "ort"),
}
_SCRIPT = Path(__file__).with_name("rival.py")
_LONGEST = 600  # seconds of one task; hybridc takes a minute or two
_TIMED_OUT = 124  # what `timeout` leaves with


@dataclass(frozen=True)
class Made:
    """What somebody made of a model: the file and its peer, the figure, and the seconds it took."""

    file: Path
    peer: str
    figure: float
    seconds: float
    versions: Mapping[str, str] = field(default_factory=dict[str, str])


class RivalError(Exception):
    """A rival gave no model."""


def run(names: Sequence[str], python: str | None = None) -> Iterator[str]:
    """The table row by row, with what is not installed; `python` is the rivals' interpreter."""
    interpreter = python or sys.executable
    present = [name for name, (package, _) in RIVALS.items() if _has(interpreter, package)]
    yield markdown.head(("model", "limit", "figure", "a call", "ratio to hybridc", "took"))
    with tempfile.TemporaryDirectory(prefix="hybridc-") as folder:
        for name in names:
            yield from _compared(SUBJECTS[name](Path(folder)), present, interpreter, Path(folder))
    absent = [name for name in RIVALS if name not in present]
    yield from (f"* {name} is not installed: not compared." for name in absent)


def _has(interpreter: str, package: str) -> bool:
    asked = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({package!r}) is None)"
    return subprocess.run([interpreter, "-c", asked], check=False).returncode == 0


def _compared(
    subject: Subject, rivals: Sequence[str], interpreter: str, folder: Path
) -> Iterator[str]:
    """A row for each, all side by side, and what has to be known of them."""
    found, notes = {"hybridc": _ours(subject, folder)}, list[str]()
    for rival in rivals:
        place = folder / f"{subject.name}-{rival}"
        try:
            found[rival] = rivalled(subject, rival, interpreter, place)
        except RivalError as error:
            notes.append(f"* {subject.name}, {rival}: {error}.")
    contenders = [Contender(each.peer, each.file) for each in found.values()]
    compared = bench.compare(contenders, frontend.load(subject.file).inputs, Plan(THREADS))
    yield from map(markdown.row, _rows(subject, found, compared))
    for rival, made in found.items():
        told = ", ".join(f"{name} {version}" for name, version in made.versions.items())
        notes += [f"* {subject.name}, {rival}: {told}."] if told else []
    if not compared.quiet:
        notes.append(f"* {subject.name}: **not quiet, {compared.busy:.1f} cores busy**.")
    yield from notes


def _rows(
    subject: Subject, found: Mapping[str, Made], compared: Comparison
) -> Iterator[tuple[str, ...]]:
    results = compared.results
    for (who, made), each in zip(found.items(), results, strict=True):
        yield (
            *(f"{subject.name}, {who}", subject.limit, f"{made.figure:.4f}"),
            f"{each.samples.median * 1e3:.3f} ms",
            f"{each.ratio(results[0]):.2f}",
            f"{made.seconds:.0f} s",
        )


def _ours(subject: Subject, folder: Path) -> Made:
    """The artifact, its figure, and the seconds that it took to compile."""
    options = Options(
        threads=THREADS,
        contract=subject.contract(timed=True),
        calibration=subject.calibration,
        validation=subject.validation,
    )
    start = time.perf_counter()
    outcome = driver.compile_source(subject.file, options)
    seconds = time.perf_counter() - start
    path = folder / f"{subject.name}.hyb"
    outcome.artifact.save(path)
    return Made(path, "hybridc", outcome.measured.accuracy["validate"].value, seconds)


class Recorded:
    """Outputs that were computed elsewhere, with the call of `InferenceSession`, in their order."""

    def __init__(self, path: Path, outputs: Sequence[str]) -> None:
        with np.load(path) as archive:
            self._found = {tuple(map(int, key.split("-"))): archive[key] for key in archive}
        self._names, self._next = outputs, 0

    def run(self, names: Sequence[str] | None, _: Feed) -> list[Any]:
        """The next sample's outputs, all or the named ones."""
        places = [self._names.index(name) for name in names or self._names]
        self._next += 1
        return [self._found[self._next - 1, place] for place in places]


def rivalled(subject: Subject, rival: str, interpreter: str, folder: Path) -> Made:
    """What a rival makes of a subject, in its interpreter.

    Raises RivalError where it ends without a model.
    """
    _hand_over(subject, rival, folder)
    outputs = [spec.name for spec in frontend.load(subject.file).outputs]
    figure = 0.0
    command = ["timeout", str(_LONGEST), interpreter, str(_SCRIPT), str(folder)]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        ) as child,
    ):
        assert child.stdin is not None
        assert child.stdout is not None
        for line in child.stdout:
            answer = json.loads(line)
            if "made" in answer:
                file, peer = folder / answer["made"], RIVALS[rival][1]
                return Made(file, peer, figure, answer["seconds"], answer["versions"])
            figure = subject.validate(Recorded(folder / answer["outputs"], outputs))
            print(figure, file=child.stdin, flush=True)
    if child.returncode == _TIMED_OUT:
        raise RivalError(f"had no model within {_LONGEST} s")
    last = (folder / "log").read_text().strip().splitlines()[-1:]
    raise RivalError(f"ended without a model: {' '.join(last)[:200]}")


def _hand_over(subject: Subject, rival: str, folder: Path) -> None:
    folder.mkdir()
    for use in ("calibration", "validation"):
        for index, feed in enumerate(getattr(subject, use)):
            np.savez(folder / f"{use}-{index}.npz", **feed)
    task = {"rival": rival, "model": str(subject.file), "loss": subject.loss}
    (folder / "task.json").write_text(json.dumps(task))
