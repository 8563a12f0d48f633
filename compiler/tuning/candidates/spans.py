"""Requests to a pool's processes, and their answers, as spans of a timeline."""

from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from hybridc.compiler.monitoring.timeline import Timeline
from hybridc.compiler.processes.child import Child, Heard, Json


@dataclass(frozen=True)
class Spans:
    """Turns what children are asked and answer into spans; `kernels` names kernels by file."""

    timeline: Timeline
    kernels: dict[str, str] = field(default_factory=dict[str, str])

    def name(self, file: Path, kernel: str) -> None:
        """Say which kernel lies in a file."""
        self.kernels[str(file)] = kernel

    def by(self, role: str) -> Heard:
        """What a child with this role in the pool calls."""

        def heard(child: Child, request: Json, answer: Json, sent: int, read: int) -> None:
            self.timeline.processes.setdefault(child.number, role)
            what = str(request["do"])
            kernel = self.kernels.get(str(request.get("kernel")), "")
            facts = {**_asked(request), **_answered(answer)}
            name = f"{what} {kernel}".strip()
            self.timeline.add(name, what, sent, read, child.number, **facts)

        return heard


def _asked(request: Json) -> dict[str, Any]:
    points = request.get("points")
    if points is not None:
        return {"points": len(points)}
    return {"point": request["point"]} if request.get("point") else {}


def _answered(answer: Json) -> dict[str, Any]:
    """How it ended; of the samples of a measurement their number and median, in seconds."""
    told = {key: answer[key] for key in ("error", "verdict", "detail") if answer.get(key)}
    if samples := answer.get("seconds"):
        times = samples if isinstance(samples, list) else [samples]
        told |= {"samples": len(times), "median_s": median(times)}
    return told
