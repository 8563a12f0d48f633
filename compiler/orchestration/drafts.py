"""The result of compiling before it is measured, and how it passes between processes."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.hardware import room
from hybridc.compiler.ir.memory import Memory
from hybridc.compiler.kernel_record import KernelRecord
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.model import Model
from hybridc.compiler.quantization.sensitivity import Lowered
from hybridc.compiler.reporting.report import Report, Stage


@dataclass(frozen=True, eq=False)
class Draft:
    """An artifact without a certificate, and the data for its report.

    So many `products` were lowered to its `precision`.  `records` is what the log or the lock knew;
    None if there was none.  `sensitive` are the products that quantisation may leave out again; it
    does not pass between processes.  `idle` are the passes that changed nothing, `resources` the
    GPU resources of each launch.
    """

    artifact: Artifact
    precision: str
    memory: Memory
    kernels: tuple[KernelRecord, ...]
    notes: tuple[str, ...]
    records: Mapping[str, Any] | None
    products: int = 0
    sensitive: Lowered | None = None
    idle: tuple[str, ...] = ()
    resources: tuple[Mapping[str, Any], ...] = ()

    def check_room(self) -> None:
        """Raise InputError if this host has no memory for a call, beside inputs and weights."""
        if "gpu" not in self.artifact.target:
            used = self.memory
            needed = used.activations + used.workspace + used.outputs
            room.check(needed, "a call of the compiled model takes")

    def report(
        self,
        model: Model,
        notes: Sequence[str],
        agreement: Sequence[Mapping[str, Any]],
        latency: Samples | None,
        stages: Sequence[Stage] = (),
    ) -> Report:
        """The report of the draft after it was examined; `notes` are those of all steps."""
        return Report(
            model=model.name,
            inputs=model.inputs,
            outputs=model.outputs,
            regions=model.regions,
            target=self.artifact.target,
            precision=self.precision,
            pipeline=self.artifact.pipeline,
            notes=tuple(notes),
            kernels=self.kernels,
            agreement=tuple(agreement),
            latency=latency,
            memory=self.memory,
            stages=tuple(stages),
            records=self.records,
            idle=self.idle,
            resources=self.resources,
        )

    def save(self, path: Path) -> dict[str, Any]:
        """Write the artifact; the rest is returned as JSON data, without what is `sensitive`."""
        self.artifact.save(path)
        return {
            "precision": self.precision,
            "products": self.products,
            "memory": asdict(self.memory),
            "kernels": [_plain(record) for record in self.kernels],
            "notes": list(self.notes),
            "records": None if self.records is None else dict(self.records),
            "idle": list(self.idle),
            "resources": list(self.resources),
        }

    @classmethod
    def load(cls, path: Path, told: Mapping[str, Any], plugins: Sequence[Path] = ()) -> "Draft":
        """Read what `save` wrote; `plugins` are files with backends that the artifact may need.

        Raises ArtifactError if the file is damaged, and KeyError or TypeError if `told` is not
        what `save` returned.
        """
        return cls(
            artifact=Artifact.load(path, plugins),
            precision=str(told["precision"]),
            products=int(told["products"]),
            memory=Memory(**told["memory"]),
            kernels=tuple(_record(record) for record in told["kernels"]),
            notes=tuple(told["notes"]),
            records=told["records"],
            idle=tuple(told["idle"]),
            resources=tuple(told["resources"]),
        )


def _record(told: Mapping[str, Any]) -> KernelRecord:
    fields: dict[str, Any] = {**told, "launches": tuple(told["launches"])}
    return KernelRecord(**fields)


def _plain(record: KernelRecord) -> dict[str, Any]:
    return {**asdict(record), "point": dict(record.point), "refused": dict(record.refused)}
