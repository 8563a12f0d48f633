"""One trained model, one limit: hybridc, and NNCF with accuracy control where it is installed."""

import importlib.util
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import markdown
from subjects import SUBJECTS, Subject

from hybridc.compiler import driver, frontend
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.measurement import bench
from hybridc.compiler.measurement.bench import Comparison, Contender, Plan

THREADS = 2
MODELS = ("digits", "sentences")
RIVALS = ("nncf", "olive")


def run(names: Sequence[str]) -> Iterator[str]:
    """The table row by row, with what is not installed."""
    yield markdown.head(("model", "limit", "figure", "a call", "ratio to hybridc", "took"))
    with tempfile.TemporaryDirectory(prefix="hybridc-") as made:
        for name in names:
            compared, rows = _compared(SUBJECTS[name](Path(made)), Path(made))
            yield from map(markdown.row, rows)
            if not compared.quiet:
                yield f"* {name}: **not quiet, {compared.busy:.1f} cores busy**."
    absent = [name for name in RIVALS if importlib.util.find_spec(name) is None]
    yield from (f"* {name} is not installed: not compared." for name in absent)
    if "olive" not in absent:
        yield "* olive is installed, and drives the same NNCF: not compared by itself."


def _compared(subject: Subject, folder: Path) -> tuple[Comparison, list[tuple[str, ...]]]:
    """All side by side, and a row for each."""
    found = {"hybridc": _ours(subject, folder)}
    if importlib.util.find_spec("nncf") is not None:
        found["nncf"] = _nncf(subject, folder)
    peers = {"hybridc": "hybridc", "nncf": "openvino{precision=default}"}
    contenders = [Contender(peers[who], file) for who, (file, _, _) in found.items()]
    inputs = frontend.load(subject.file).inputs
    compared = bench.compare(contenders, inputs, Plan(THREADS))
    results = compared.results
    return compared, [
        (
            *(f"{subject.name}, {who}", subject.limit, f"{figure:.4f}"),
            f"{each.samples.median * 1e3:.3f} ms",
            f"{each.ratio(results[0]):.2f}",
            f"{seconds:.0f} s",
        )
        for (who, (_, figure, seconds)), each in zip(found.items(), results, strict=True)
    ]


def _ours(subject: Subject, folder: Path) -> tuple[Path, float, float]:
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
    return path, outcome.measured.accuracy["validate"].value, seconds


class Compiled:
    """A compiled model of OpenVINO with the call of `InferenceSession`."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def run(self, names: Sequence[str] | None, feed: Mapping[str, Any]) -> list[Any]:
        """All outputs, or the named ones."""
        found = self._model(dict(feed))
        return [found[name] for name in names] if names else [found[o] for o in self._model.outputs]


def _nncf(subject: Subject, folder: Path) -> tuple[Path, float, float]:
    """OpenVINO's model by `quantize_with_accuracy_control`, its figure, and how long that took."""
    import nncf
    import openvino

    def figure(compiled: Any, _: Any) -> float:
        return subject.validate(Compiled(compiled))

    core = openvino.Core()
    start = time.perf_counter()
    quantised = nncf.quantize_with_accuracy_control(
        core.read_model(str(subject.file)),
        calibration_dataset=nncf.Dataset(list(subject.calibration)),
        validation_dataset=nncf.Dataset(list(subject.validation)),
        validation_fn=figure,
        max_drop=subject.loss,
        drop_type=nncf.DropType.ABSOLUTE,
    )
    seconds = time.perf_counter() - start
    path = folder / f"{subject.name}-nncf.xml"
    openvino.save_model(quantised, str(path), compress_to_fp16=False)
    return path, figure(core.compile_model(str(path), "CPU"), None), seconds
