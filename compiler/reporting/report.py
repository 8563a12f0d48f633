"""What happened in a compilation: data for the artifact and scripts, text for people."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from hybridc.compiler.assurance import coverage, not_numbers
from hybridc.compiler.kernel_record import FAULTY, KernelRecord
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.model import Region, TensorSpec
from hybridc.compiler.model import summary as summary_of
from hybridc.compiler.monitoring.monitored import Monitored
from hybridc.compiler.orchestration.contributions import Hybrid
from hybridc.compiler.orchestration.decisions import NOT_NEEDED, Decision
from hybridc.compiler.text.tables import table
from hybridc.compiler.text.units import format_duration, format_point

if TYPE_CHECKING:
    from hybridc.compiler.ir.memory import Memory  # imports TVM, which takes its time

# How notes begin that tell of vendor libraries; the last one says what came of them.
BACKENDS = "backends:"
TUNED = "tuned by"  # how the note of a tuning on the way begins, which everybody wants to know


@dataclass(frozen=True)
class Stage:
    """One step of a compilation and the seconds that it took; passes are steps."""

    name: str
    seconds: float


@dataclass(frozen=True)
class Report:
    """One compilation.

    `agreement` holds for each output how far the artifact's answer is from the reference's, as
    `verify` found it; it is empty if that was not asked for, as `latency` then is None.
    `records` tells what the tuning log or the lock knew; None if there was none.  `decisions`
    are the cascade's; `hybrid` is what its components contributed (see `contributions`), and
    `profile` the time of each kernel, where that was asked for; `monitored` is what a monitor saw
    meanwhile.  `idle` are the passes that changed nothing.
    """

    model: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    target: Mapping[str, Any]
    precision: str
    pipeline: str
    notes: tuple[str, ...]
    kernels: tuple[KernelRecord, ...]
    agreement: tuple[Mapping[str, Any], ...]
    latency: Samples | None
    memory: "Memory"
    stages: tuple[Stage, ...]
    records: Mapping[str, Any] | None = None
    decisions: tuple[Decision, ...] = ()
    hybrid: Hybrid | None = None
    profile: Mapping[str, Any] | None = None
    monitored: Monitored | None = None
    regions: tuple[Region, ...] = ()
    idle: tuple[str, ...] = ()
    resources: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as JSON data."""
        records = None if self.records is None else dict(self.records)
        stages = [asdict(stage) for stage in self.stages]
        decisions = [{**each.to_json(), "seconds": each.seconds} for each in self.decisions]
        told = {**self.lasting(), "records": records, "stages": stages, "decisions": decisions}
        return told if self.monitored is None else {**told, "monitor": self.monitored.to_json()}

    def lasting(self) -> dict[str, Any]:
        """The part that the artifact keeps.

        How long compiling took is left out, and where its schedules were found: they differ, and
        the same inputs shall give the same file.
        """
        return {
            "model": self.model,
            "target": dict(self.target),
            "precision": self.precision,
            "pipeline": self.pipeline,
            "notes": list(self.notes),
            "kernels": [_kernel(record) for record in self.kernels],
            **({"regions": list(map(_region, self.regions))} if self.regions else {}),
            **({"resources": list(map(dict, self.resources))} if self.resources else {}),
            "agreement": [dict(output) for output in self.agreement],
            "latency": self.latency.to_json() if self.latency else None,
            "memory": self.memory.to_json(),
            "decisions": [each.to_json() for each in self.decisions if each.verdict != NOT_NEEDED],
            **(self.hybrid.lasting().to_json() if self.hybrid else {}),
            **({"profile": dict(self.profile)} if self.profile else {}),
        }

    def summary(self) -> str:
        """The few lines that `hybridc compile` prints, with the notes that matter most."""
        notes = [note for note in self.notes if not_numbers.NAN in note or coverage.SILENT in note]
        notes += [note for note in self.notes if note.startswith((TUNED, FAULTY))]
        notes += [note for note in self.notes if note.startswith(BACKENDS)][-1:]
        return self._result(notes)

    def _result(self, notes: Sequence[str] = ()) -> str:
        rules = Counter(record.rule for record in self.kernels).most_common()
        counted = ", ".join(f"{count} {rule}" for rule, count in rules)
        lines = [f"kernels by rule: {counted or 'none'}"]
        lines += [f"regions: {summary_of(self.regions)}"] if self.regions else []
        lines += [_records_line(self.records)] if self.records is not None else []
        lines += notes
        lines += [_agreement_line(output) for output in self.agreement] or ["not verified"]
        if self.latency:
            lines.append(f"latency {self.latency.text()}")
        lines.append(self.memory.text())
        if len(self.decisions) > 1:
            lines.append(self._decided())
        if self.hybrid and (told := self.hybrid.text()):
            lines.append(told)
        return "\n".join(lines)

    def text(self) -> str:
        """The whole report as plain text."""
        sections = (
            ("model", self._model()),
            ("notes", "\n".join(self.notes)),
            ("result", self._result()),
            ("stages", self._stages()),
            ("monitor", self.monitored.text() if self.monitored else ""),
            ("kernels", self._kernels()),
            ("regions", self._regions()),
            ("rules that did not apply", self._refusals()),
        )
        return "\n\n".join(
            f"{title}\n{'-' * len(title)}\n{body}" for title, body in sections if body
        )

    def _model(self) -> str:
        features = " ".join(self.target.get("features", ()))
        return "\n".join(
            [
                f"name      {self.model}",
                *(f"input     {spec.describe()}" for spec in self.inputs),
                *(f"output    {spec.describe()}" for spec in self.outputs),
                f"target    {self.target.get('cpu')}, {self.target.get('threads')} threads",
                f"needs     {features}",
                f"precision {self.precision}",
                f"pipeline  {self.pipeline}",
            ]
        )

    def _decided(self) -> str:
        """The stages that were tried or left out for a reason; those after the end in a line."""
        told = [each for each in self.decisions if each.verdict != NOT_NEEDED or each.predicted]
        idle = [each.stage for each in self.decisions if each not in told]
        lines = [self._tried(told)] if len(told) > 1 else []
        lines += [f"stages not needed: {', '.join(idle)}"] if idle else []
        return "\n".join(lines)

    def _tried(self, decisions: Sequence[Decision]) -> str:
        rows: list[tuple[str, ...]] = [
            (
                each.stage,
                each.verdict,
                _latency_of(each),
                _expected_of(each),
                f"{each.seconds:.1f} s",
                each.reason,
            )
            for each in decisions
        ]
        headers: tuple[str, ...] = ("stage", "", "latency", "expected", "took", "")
        if not any(each.predicted for each in decisions):
            rows = [(*row[:3], *row[4:]) for row in rows]
            headers = (*headers[:3], *headers[4:])
        return table(headers, rows)

    def _stages(self) -> str:
        total = sum(stage.seconds for stage in self.stages)
        rows = [(stage.name, f"{stage.seconds:.3f} s") for stage in self.stages]
        return table(("stage", "time"), [*rows, ("total", f"{total:.3f} s")])

    def _kernels(self) -> str:
        rows = [(record.kernel, record.rule, format_point(record.point)) for record in self.kernels]
        return table(("kernel", "rule", "point"), rows) if rows else ""

    def _regions(self) -> str:
        rows = [
            (
                region.name,
                _counts(region.operators),
                ", ".join(spec.describe() for spec in region.inputs),
                ", ".join(spec.describe() for spec in region.outputs),
            )
            for region in self.regions
        ]
        return table(("region", "operators", "inputs", "outputs"), rows) if rows else ""

    def _refusals(self) -> str:
        """For each kernel, why the rules that were asked before the one that took it did not."""
        return "\n".join(
            f"{record.kernel}: {rule} because {reason}"
            for record in self.kernels
            for rule, reason in record.refused.items()
        )


def _kernel(record: KernelRecord) -> dict[str, Any]:
    data = {**asdict(record), "point": dict(record.point), "refused": dict(record.refused)}
    del data["workload"], data["launches"]  # the schedule lock and the resources have them
    return data


def _region(region: Region) -> dict[str, Any]:
    """What is told of a part that ONNX Runtime computes."""
    return {
        "region": region.name,
        "operators": dict(region.operators),
        "inputs": [spec.describe() for spec in region.inputs],
        "outputs": [spec.describe() for spec in region.outputs],
    }


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} x{count}" if count > 1 else name for name, count in counts.items())


def _latency_of(decision: Decision) -> str:
    found = (decision.measured or {}).get("latency")
    return format_duration(found["value"]) if found else "-"


def _expected_of(decision: Decision) -> str:
    """`1.42 times as fast (1.11 to 1.82)`: what was expected, within one standard deviation."""
    if decision.predicted is None:
        return "-"
    mean, sigma = decision.predicted["log_speedup"], decision.predicted["sigma"]
    times, low, high = (math.exp(value) for value in (mean, mean - sigma, mean + sigma))
    return f"{times:.3g} times as fast ({low:.3g} to {high:.3g})"


def _records_line(records: Mapping[str, Any]) -> str:
    if "locked" in records:
        differs = records.get("differs")
        though = f", though {'; '.join(differs)}" if differs else ""
        return f"schedules as {records['source']} has them{though}"
    if "fault" in records:
        return f"no tuning log: {records['fault']}"
    hits = f"{records['hits']} hit{'' if records['hits'] == 1 else 's'}"
    misses = f"{records['misses']} miss{'' if records['misses'] == 1 else 'es'}"
    counts = f"{hits}, {records['near']} near, {misses}"
    skipped = f"; not usable: {'; '.join(records['skipped'])}" if records["skipped"] else ""
    return f"tuning log {records['source']}: {counts}{skipped}"


def _agreement_line(output: Mapping[str, Any]) -> str:
    return (
        f"output {output['output']}: max-abs {output['max_abs']:.3g}, "
        f"cosine {output['cosine']:.9f} against the reference"
    )
