"""Results of the stages of an interrupted compilation, kept in the cache directory.

A result's key is everything that it depends on: model, options, data, target, tools and machine.
It consists of an artifact and a note beside it, which contains the artifact's digest and its own;
what is torn, altered or older than a day is not used.  For a quantised model the note has its
products with their errors; the graph that tries each alone is built again if it is needed.
"""

import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from blake3 import blake3

from hybridc.compiler import settings
from hybridc.compiler.artifacts import archive
from hybridc.compiler.assurance import calibration, remembered
from hybridc.compiler.assurance.terms import Trial
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options, Plan
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.hardware import host
from hybridc.compiler.log import keys
from hybridc.compiler.measurement.conditions import Conditions
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.model import Model
from hybridc.compiler.orchestration import digests
from hybridc.compiler.orchestration.attempt import Outcome, lowered
from hybridc.compiler.orchestration.drafts import Draft
from hybridc.compiler.quantization.sensitivity import Lowered, Operator

OLDEST = 24 * 3600.0  # seconds; a machine's pace and load change from week to week
MOST = 4 * 2**30  # bytes of all results together
_LONGEST_NOTE = 64 * 2**20
# Options that do not change a stage's result, or are in the key of the whole compilation.
_APART = frozenset(
    {
        "contract",
        "calibration",
        "validation",
        "steering",
        "progress",
        "dump_ir",
        "monitor",
        "monitor_interval",
        "trace",
    }
)


def folder_of(key: Mapping[str, Any]) -> Path:
    """The folder of the results of a compilation, by its key."""
    return settings.cache_directory() / "stages" / blake3(archive.dump_json(key)).hexdigest()


def key(trial: Trial, plan: Plan) -> dict[str, Any]:
    """Everything that a compilation's result depends on, as JSON data."""
    options = plan.options
    files = [*options.plugins, *([options.lock] if options.lock else [])]
    return {
        "model": digests.of_module(trial.model.module),
        "regions": list(map(digests.of_region, trial.model.regions)),
        "specs": [spec.describe() for spec in (*trial.model.inputs, *trial.model.outputs)],
        "data": calibration.digest(list(trial.feeds)),
        "ranges": dict(trial.data.calibrated or {}) if trial.data else {},
        "contract": options.contract.describe(),
        "target": keys.of_target(plan.target).key,
        "toolchain": keys.of_toolchain().key,
        "machine": host.cpu_model(),
        "log": options.log or settings.log_url(),
        "files": [blake3(path.read_bytes()).hexdigest() for path in files],
    }


@dataclass
class Kept:
    """The results of one compilation; `notes` collects remarks on them for the report."""

    folder: Path
    trial: Trial
    now: Callable[[], float] = time.time
    notes: list[str] = field(default_factory=list[str])

    def load(self, options: Options) -> Outcome | None:
        """The result of these options, if there is an intact one that is not too old."""
        path = self._path(options)
        if not path.exists():
            return None
        try:
            told = _checked(path)
            age = self.now() - float(told["when"])
            if not 0 <= age <= OLDEST:
                return None
            artifact = path.with_suffix(".hyb")
            if archive.seal_of(artifact) != told["artifact"]:  # loading checks all bytes by it
                raise ValueError("it belongs to another artifact")
            draft = Draft.load(artifact, told["draft"], options.plugins)
            found = _outcome(draft, told, self.trial.model)
            sensitive = self._sensitive(options, told["operators"])
            found = replace(found, sensitive=sensitive, seconds=float(told["took"]))
        except (HybridcError, OSError, *remembered.UNKNOWN) as error:
            self.notes.append(f"a stage's result of an earlier call was not used: {_short(error)}")
            return None
        self.notes.append(f"a stage's result is from an earlier call, measured {age:.0f} s ago")
        return found

    def save(self, options: Options, found: Outcome) -> None:
        """Keep a result; if it cannot be written, the compilation continues with a note."""
        path = self._path(options)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            made = _draft(found)
            artifact = path.with_suffix(".hyb")
            draft = made.save(artifact)
            told = {
                "when": self.now(),
                "draft": draft,
                "artifact": archive.seal_of(artifact),
                "agreement": [dict(each) for each in found.report.agreement],
                "seconds": list(found.report.latency.seconds) if found.report.latency else None,
                "conditions": _conditions(found.report.latency),
                "measured": found.measured.to_json(),
                "certificate": found.artifact.certificate,
                "broken": list(found.broken),
                "operators": _operators(found.sensitive),
                "took": found.seconds,
            }
            body = archive.dump_json(told)
            with replacing(path) as stream:
                stream.write(blake3(body).hexdigest().encode() + b"\n" + body)
            _tidy(self.folder.parent, self.folder)
        except (OSError, HybridcError) as error:
            self.notes.append(f"a stage's result could not be kept: {_short(error)}")

    def count(self) -> int:
        """How many results there are."""
        return sum(1 for _ in self.folder.glob("*.json"))

    def clear(self) -> None:
        """Forget the results: the compilation is done."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _sensitive(
        self, options: Options, told: Sequence[Mapping[str, Any]] | None
    ) -> Lowered | None:
        """The products of a quantised model, and how to try each alone."""
        ranges = self.trial.data.calibration if self.trial.data else None
        if told is None or ranges is None:
            return None
        found = tuple(Operator(**each) for each in told)
        again = Lowered(
            found, lambda: lowered(self.trial, plans.plan(options)).switched(), ranges.feeds
        )
        return again.on(self.trial.unseen().feeds, self.trial.model.inputs)

    def _path(self, options: Options) -> Path:
        return self.folder / f"{blake3(archive.dump_json(described(options))).hexdigest()}.json"


def described(options: Options) -> dict[str, Any]:
    """The options that a stage's result depends on, as JSON data."""
    return {
        each.name: repr(getattr(options, each.name))
        for each in fields(options)
        if each.name not in _APART
    }


def _operators(found: Lowered | None) -> list[dict[str, Any]] | None:
    return None if found is None else [asdict(each) for each in found.operators]


def _checked(path: Path) -> dict[str, Any]:
    """The note, after checking its digest."""
    if path.stat().st_size > _LONGEST_NOTE:
        raise ValueError("its note is too long")
    digest, _, body = path.read_bytes().partition(b"\n")
    if blake3(body).hexdigest().encode() != digest:
        raise ValueError("its note is torn")
    told: dict[str, Any] = json.loads(body)
    return told


def _draft(found: Outcome) -> Draft:
    report = found.report
    return Draft(
        artifact=found.artifact,
        precision=report.precision,
        memory=report.memory,
        kernels=report.kernels,
        notes=report.notes,
        records=report.records,
        idle=report.idle,
        resources=report.resources,
    )


def _outcome(made: Draft, told: Mapping[str, Any], model: Model) -> Outcome:
    artifact = replace(made.artifact, certificate=told["certificate"])
    latency = _samples(told["seconds"], told["conditions"])
    report = replace(made, artifact=artifact).report(model, made.notes, told["agreement"], latency)
    return Outcome(artifact, report, remembered.measured(told["measured"]), tuple(told["broken"]))


def _conditions(found: Samples | None) -> dict[str, Any] | None:
    return found.conditions.to_json() if found and found.conditions else None


def _samples(seconds: Sequence[float] | None, told: Mapping[str, Any] | None) -> Samples | None:
    if seconds is None:
        return None
    return Samples(tuple(seconds), Conditions.of_json(told) if told else None)


def _tidy(root: Path, own: Path) -> None:
    """Remove results of other compilations that are too old, or the oldest if all take too much."""
    found = sorted(root.iterdir(), key=lambda folder: folder.stat().st_mtime)
    sizes = {each: sum(file.stat().st_size for file in each.glob("*")) for each in found}
    total = sum(sizes.values())
    for each in found:
        old = time.time() - each.stat().st_mtime > OLDEST
        if each != own and (old or total > MOST):
            shutil.rmtree(each, ignore_errors=True)
            total -= sizes[each]


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
