"""Compile one model with several options at once, each in a process of its own.

Nothing is measured here: that is done afterwards, one by one, on a machine that is quiet again.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler import settings
from hybridc.compiler.assurance.terms import Trial
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.filesystem import scratch
from hybridc.compiler.hardware import host
from hybridc.compiler.model import Feed, Model
from hybridc.compiler.orchestration.drafts import Draft
from hybridc.compiler.processes.child import Child, ChildError, first_of

WORKER = "hybridc.compiler.orchestration.side_by_side_worker"
LONGEST = 3600.0  # seconds that one compilation may take where there is no budget
# What the parent keeps to itself: it judges, measures and steers.
_OWN = frozenset(
    (
        *("contract", "calibration", "validation", "tuning", "steering", "progress"),
        *("verify", "dump_ir", "timed", "monitor", "monitor_interval", "trace"),
    )
)


class BuildError(HybridcError):
    """A process that compiled a stage failed or died."""

    exit_code = 1


def portable(options: Options) -> dict[str, Any] | None:
    """The options that decide what is built, as JSON data; None if one of them is no such.

    What is calibrated stays here, beside its data and what tells how sensitive its products are.
    """
    found: dict[str, Any] = {}
    for each in fields(options):
        value = getattr(options, each.name)
        if each.name in _OWN or (each.default is not MISSING and value == each.default):
            continue
        if isinstance(value, Path):
            value = {"path": str(value)}
        elif isinstance(value, tuple | list) and all(isinstance(item, Path) for item in value):
            value = {"paths": [str(item) for item in value]}
        elif not isinstance(value, str | int | float | bool):
            return None
        found[each.name] = value
    return None if options.tuning is not None or plans.calibrates(options) else found


def restored(told: Mapping[str, Any]) -> dict[str, Any]:
    """What `portable` wrote, as arguments of `Options`."""
    found: dict[str, Any] = {}
    for name, value in told.items():
        match value:
            case {"path": path}:
                found[name] = Path(path)
            case {"paths": paths}:
                found[name] = tuple(map(Path, paths))
            case _:
                found[name] = value
    return found


@dataclass(frozen=True)
class Job:
    """Options to compile with, and as JSON data what the process is told."""

    options: Options
    told: Mapping[str, Any]


@dataclass
class _Running:
    child: Child
    job: Job
    output: Path
    answer: dict[str, Any] = field(default_factory=dict[str, Any])


def drafts(
    trial: Trial, module: str, jobs: Sequence[Job], workers: int, seconds: float
) -> list[Draft | HybridcError]:
    """Compile each job's options in a process; `module` is the model's, as TVM writes it.

    At most `workers` run at once, for so many `seconds` altogether.  What fails is its own answer.
    """
    found: dict[int, Draft | HybridcError] = {}
    waiting, running = list(enumerate(jobs)), dict[int, _Running]()
    deadline = time.monotonic() + seconds
    with scratch.Folder() as folder:
        _hand_over(Path(folder), trial.model, trial.feeds[0], module)
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    number, job = waiting.pop(0)
                    running[number] = _start(Path(folder), number, job, deadline)
                for number in _ended(running):
                    found[number] = _taken(running.pop(number))
        finally:
            for each in running.values():
                each.child.kill()
    return [found[number] for number in range(len(jobs))]


def workers(asked: int | None, jobs: int) -> int:
    """How many processes: as asked, else one for each core; never more than there are jobs."""
    return max(1, min(asked or host.cores(), jobs))


def _hand_over(folder: Path, model: Model, feed: Feed, module: str) -> None:
    """Write what building needs; one sample is enough to time libraries on."""
    (folder / "module.json").write_text(module)
    specs = {
        "name": model.name,
        "inputs": [[s.name, list(s.shape), s.dtype] for s in model.inputs],
        "outputs": [[s.name, list(s.shape), s.dtype] for s in model.outputs],
        "notes": list(model.notes),
    }
    (folder / "model.json").write_text(json.dumps(specs))
    for place, spec in enumerate(model.inputs):
        np.save(folder / f"feed{place}.npy", feed[spec.name], allow_pickle=False)


def _start(folder: Path, number: int, job: Job, deadline: float) -> _Running:
    child = Child(WORKER, settings.environment(1, folder=folder))
    output = folder / f"draft{number}.hyb"
    request = {"folder": str(folder), "output": str(output), "options": job.told}
    child.send(request, max(0.0, deadline - time.monotonic()))
    return _Running(child, job, output)


def _ended(running: Mapping[int, _Running]) -> list[int]:
    ready = first_of([each.child for each in running.values()], 1.0)
    return [number for number, each in running.items() if each.child in ready]


def _taken(running: _Running) -> Draft | HybridcError:
    try:
        answer = running.child.receive()
        if "error" in answer:
            return BuildError(str(answer["error"]))
        return Draft.load(running.output, answer)
    except (ChildError, HybridcError) as error:
        return error if isinstance(error, HybridcError) else BuildError(str(error))
    except (ValueError, KeyError, TypeError) as error:
        return BuildError(f"its process answered nonsense: {error}")
    finally:
        running.child.kill()
