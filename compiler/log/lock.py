"""Rebuild an artifact from its schedule lock: every rule and point as they were, none measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hybridc.compiler import pipeline
from hybridc.compiler import target as targets
from hybridc.compiler.artifacts import artifact as artifacts
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.errors import InputError, MissingRecordError, PluginError, described
from hybridc.compiler.filesystem.files import unreadable
from hybridc.compiler.interfaces import Point, Usable
from hybridc.compiler.kernel_record import Alternatives
from hybridc.compiler.log import conditions, keys
from hybridc.compiler.log.conditions import Difference
from hybridc.compiler.log.keys import Described
from hybridc.compiler.offload.backend import OWN
from hybridc.compiler.orchestration import precisions
from hybridc.compiler.target import Target

_LIMIT = 64 * 2**20  # bytes of a lock


@dataclass
class LockAdvice:
    """The choices of a lock, by what a kernel computes; each kernel must have one.

    `made` are the target and the tools that it was made for and with, where it tells them;
    `differs` tells in what these are not those of the compilation.
    """

    source: str
    choices: Mapping[str, tuple[str, Point]]
    made: tuple[Described, Described] | None = None
    differs: tuple[str, ...] = ()
    faults: dict[str, str] = field(default_factory=dict[str, str])

    def on(self, target: Target, near: str) -> "LockAdvice":
        """The lock for a compilation on a target; `near` is that of `plans.Options`.

        Raises MissingRecordError if it was made under conditions that do not count.
        """
        differs = _differences(self.made, target)
        told = tuple(map(str, differs))
        if not conditions.allowed(differs, near):
            raise MissingRecordError(
                f"the schedules of {self.source} are for other conditions: {'; '.join(told)};"
                " compile for those, or use them anyway with --near any"
            )
        return replace(self, differs=told, faults={})

    def choose(
        self, kernel: str, workload: str, usable: Usable, mode: str
    ) -> tuple[str, Point] | None:
        """The rule and the point that the lock has for a kernel."""
        choice = self.choices.get(workload)
        unfit = usable(*choice) if choice else "the lock has no kernel that computes the same"
        if unfit:
            self.faults[kernel] = unfit
            return None
        return choice

    def missed(self, kernel: str) -> None:
        """A kernel that got its rule's default: `choose` knows why."""

    def fault(self, workload: str, rule: str, point: Point) -> str | None:
        """None: a lock holds what was compiled."""

    def library(self, workload: str) -> str | None:
        """What the lock says; our own kernels where it has no such subgraph."""
        return self.choices.get(workload, (OWN, {}))[0]

    def fastest(self, among: Alternatives) -> int | None:
        """The kernel that the lock names, if it names one of them."""
        named = (i for i, workload in enumerate(among.workloads) if workload in self.choices)
        return next(named, None)

    def check(self) -> None:
        """Raise MissingRecordError if a kernel could not be scheduled as the lock says."""
        if self.faults:
            kernel, fault = next(iter(self.faults.items()))
            raise MissingRecordError(
                f"the lock of {self.source} does not fit {len(self.faults)} kernels of this model;"
                f" {kernel}: {fault}"
            )

    def describe(self) -> Mapping[str, Any]:
        """What came of it, as JSON data."""
        told = (
            ["its target and precision are unknown (give --dtype, or the artifact)"]
            if self.made is None
            else self.differs
        )
        return {"source": self.source, "locked": len(self.choices), "differs": [*told]}


def read(path: Path) -> LockAdvice:
    """Read the lock of an artifact, or the member `schedule.lock` of one by itself.

    Raises InputError if the file is neither.
    """
    made = None
    if path.suffix == ".hyb":
        artifact = Artifact.load(path)
        data, made = artifact.lock, _conditions(path, artifact)
    else:
        data = _load(path)
    if not isinstance(data, dict):
        raise InputError(f"{path} is not a schedule lock: it is not a JSON object")
    return LockAdvice(str(path), dict(_entry(path, *item) for item in data.items()), made)


def precision(path: Path, plugins: Sequence[Path] = ()) -> tuple[str, tuple[str, ...]] | None:
    """The precision of the artifact that a lock is part of, and the products that this left alone.

    None for a lock by itself, and where a pass of the artifact is none of those known here, with
    the `plugins`.  A kernel does not tell it: one of fp32 may read weights that were rounded.
    """
    if path.suffix != ".hyb":
        return None
    try:
        steps = pipeline.parse(Artifact.load(path).pipeline, pipeline.passes(plugins))
    except PluginError:
        return None
    return precisions.of_steps(steps), precisions.kept(steps)


def _conditions(path: Path, artifact: Artifact) -> tuple[Described, Described]:
    """The target that an artifact was compiled for, and the tools that did it."""
    tools = Described.of("toolchain", dict(artifact.toolchain))
    try:
        return keys.of_target(targets.described(artifact.target)), tools
    except (InputError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} tells no target that is known for its schedules: {described(error)}"
        ) from None


def _differences(made: tuple[Described, Described] | None, target: Target) -> Sequence[Difference]:
    """In what the conditions of a lock are not those of a compilation here."""
    if made is None:
        return ()
    here = {**made[1].data, **artifacts.toolchain()}
    tools = Described.of("toolchain", here)
    return [
        *conditions.between(keys.of_target(target), made[0]),
        *conditions.between(tools, made[1], "toolchain"),
    ]


def _load(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            return json.loads(stream.read(_LIMIT))
    except OSError as error:
        raise InputError(unreadable(path, error)) from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is neither an artifact (.hyb) nor JSON: {error}") from None


def _entry(path: Path, kernel: str, entry: object) -> tuple[str, tuple[str, Point]]:
    match entry:
        case {"rule": str(rule), "point": dict(point), "workload": str(workload)} if all(
            type(value) is int for value in point.values()
        ):
            return workload, (rule, point)
        case _:
            raise InputError(f"{path}: the lock of {kernel} lacks a rule, point or workload")
