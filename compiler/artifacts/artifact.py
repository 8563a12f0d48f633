"""The artifact: one file with a compiled model, its weights, and measurements of it.

Loading checks that the file is complete and unaltered, not that its author can be trusted: it
contains native code, and running an artifact means running that code.
"""

import mmap
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler.artifacts import archive, specs
from hybridc.compiler.artifacts.weights import decode as decode_weights
from hybridc.compiler.artifacts.weights import encode as encode_weights
from hybridc.compiler.cuda import presence
from hybridc.compiler.delegation import region_store
from hybridc.compiler.errors import ArtifactError
from hybridc.compiler.filesystem.files import reason, replacing, unreadable
from hybridc.compiler.hardware import host
from hybridc.compiler.kernel_record import KernelRecord
from hybridc.compiler.model import Array, Region, TensorSpec
from hybridc.compiler.offload import calls
from hybridc.compiler.offload.calls import Offload
from hybridc.compiler.quantization import compression
from hybridc.compiler.quantization.compression import Compressed, Halves

# What the members mean, without regions and with them; the container has a version of its own.
# The third has machine code of a GPU besides, as a tensor of bytes under a name of its own; the
# fourth has kernels that libraries compute, and the fifth weights that are unpacked when it is
# loaded; each of these two may have any of those before.
FORMAT, REGION_FORMAT, GPU_FORMAT, OFFLOAD_FORMAT, COMPRESSED_FORMAT = 1, 2, 3, 4, 5
_DEVICE_CODE = "hybridc.cubin"
REGION_RUNTIME = "onnxruntime"
_TOOLS = ("hybridc", "apache-tvm", "apache-tvm-ffi")

Json = Mapping[str, Any]


def toolchain(
    regions: bool = False, offloads: Sequence[Offload] = (), plugins: Sequence[Path] = ()
) -> dict[str, str]:
    """The versions of what compiles here: they decide the code as much as the model does.

    ONNX Runtime is one of them where it has `regions` to compute, and so is what `offloads` need;
    `plugins` are files that their backends may be in.
    """
    named = (*_TOOLS, *((REGION_RUNTIME,) if regions else ()))
    return {name: version(name) for name in named} | calls.versions(offloads, plugins)


@dataclass(frozen=True, eq=False)
class Artifact:
    """A compiled model.

    `inputs` and `outputs` describe its tensors.  `target` is what it was compiled for, with the
    `features` (instruction sets) that it needs, and `pipeline` the text of the passes.
    `report` and `certificate` are JSON data: what was done, and what was measured of it and on
    which data.  `lock` contains the schedule rule and point of each kernel.

    `library` is a shared library (ELF); `weights` are the constants, in the order of its entry
    point's arguments; `alignment` is that of the inputs, in bytes.  `device` is machine code for a
    GPU (a cubin) with the kernels that the library launches.  `regions` are the parts that ONNX
    Runtime computes, `offloads` the kernels that vendor libraries compute.  `plugins` are files on
    this host with backends for these, and are not saved.  `compressed` are those of the weights
    that the file holds in few bits.
    """

    name: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    target: Json = field(repr=False)
    pipeline: str = field(repr=False)
    library: bytes = field(repr=False)
    weights: Mapping[str, Array] = field(repr=False)
    lock: Json = field(default_factory=dict[str, Any], repr=False)
    report: Json = field(default_factory=dict[str, Any], repr=False)
    certificate: Json = field(default_factory=dict[str, Any], repr=False)
    toolchain: Json = field(default_factory=toolchain, repr=False)
    alignment: int = field(default=archive.ALIGNMENT, repr=False)
    regions: tuple[Region, ...] = field(default=(), repr=False)
    device: bytes = field(default=b"", repr=False)
    offloads: tuple[Offload, ...] = field(default=(), repr=False)
    plugins: tuple[Path, ...] = field(default=(), repr=False)
    compressed: Mapping[str, Compressed | Halves] = field(
        default_factory=dict[str, Compressed | Halves], repr=False
    )

    def manifest(self) -> dict[str, Any]:
        """The artifact's description as JSON data; `save` adds the digests of the members."""
        places = region_store.places(self.regions, self._held())
        optional: dict[str, Any] = {}
        if self.compressed:
            optional["compressed"] = [few.to_json(name) for name, few in self.compressed.items()]
        if self.regions:
            optional["regions"] = region_store.describe(self.regions, places)
        if self.offloads:
            optional["offloads"] = [each.to_json() for each in self.offloads]
        return {
            **optional,
            "format": self._format(),
            "name": self.name,
            "inputs": list(map(specs.to_json, self.inputs)),
            "outputs": list(map(specs.to_json, self.outputs)),
            "target": self.target,
            "pipeline": self.pipeline,
            "toolchain": self.toolchain,
            "certificate": self.certificate,
            "alignment": self.alignment,
        }

    def _format(self) -> int:
        if self.compressed:
            return COMPRESSED_FORMAT
        if self.offloads:
            return OFFLOAD_FORMAT
        if "gpu" in self.target:
            return GPU_FORMAT
        return REGION_FORMAT if self.regions else FORMAT

    @property
    def called(self) -> list[str]:
        """The names of what compiled code calls: regions, then kernels of vendor libraries."""
        return [*(each.name for each in self.regions), *(each.name for each in self.offloads)]

    def lacking(self, offered: frozenset[str] | None = None) -> tuple[str, ...]:
        """Instruction sets that the artifact needs and a CPU (default: this one) lacks."""
        available = host.cpu_features() if offered is None else offered
        return tuple(sorted(set(self.target.get("features", ())) - available))

    def unfit(self) -> str:
        """Why no GPU of this host can run the artifact; empty if one can, or none is needed."""
        return presence.unfit(self.target)

    def tensors(self) -> dict[str, Array]:
        """All weights: those of compiled code, and those that only regions use."""
        return {**self.weights, **region_store.added(self.regions, self.weights)}

    def stored(self) -> dict[str, Array]:
        """The tensors of the file: all weights, some as the integers that stand for them."""
        held = self._held()
        return {**held, **region_store.added(self.regions, held)}

    def _held(self) -> dict[str, Array]:
        held: dict[str, Array] = {}
        for name, array in self.weights.items():
            few = self.compressed.get(name)
            held |= {name: array} if few is None else few.tensors(name)
        return held

    def _code(self) -> dict[str, Array]:
        """The machine code of a GPU as a tensor."""
        code = np.frombuffer(self.device, np.uint8)
        return {_DEVICE_CODE: code} if self.device else {}

    def save(self, path: str | Path) -> None:
        """Write the artifact; equal artifacts give equal bytes.

        An existing file is replaced atomically.  Raises ArtifactError if the file cannot be
        written; an existing one is then unchanged.
        """
        try:
            with replacing(Path(path)) as stream:
                archive.write(stream, self.manifest(), self._members())
        except OSError as error:
            raise ArtifactError(f"cannot write {path}: {reason(error)}") from error

    def size(self) -> int:
        """The size in bytes of the file that `save` writes."""
        with tempfile.TemporaryFile(prefix="hybridc-") as stream:
            archive.write(stream, self.manifest(), self._members())
            return stream.seek(0, os.SEEK_END)

    def _members(self) -> dict[str, archive.Chunks]:
        """All that is in the file beside the manifest."""
        return {
            "schedule.lock": (archive.dump_json(self.lock),),
            "report.json": (archive.dump_json(self.report),),
            "lib.so": (self.library,),
            "weights.safetensors": encode_weights({**self.stored(), **self._code()}),
            **{
                archive.region_member(index): (region.proto,)
                for index, region in enumerate(self.regions)
            },
        }

    @classmethod
    def load(cls, path: str | Path, plugins: Sequence[Path] = ()) -> "Artifact":
        """Read an artifact and verify all of its hashes; the weights stay in the mapped file.

        `plugins` are files with backends that it may need.  While it is in use, the file may be
        replaced (as `save` does) but not modified.  Raises ArtifactError if it is missing, damaged,
        altered, or not an artifact.
        """
        try:
            return replace(_decode(_map(Path(path))), plugins=tuple(plugins))
        except OSError as error:
            raise ArtifactError(unreadable(path, error)) from error
        except ArtifactError as error:
            raise ArtifactError(f"{path}: {error}") from None


def lock_of(records: Iterable[KernelRecord]) -> dict[str, Any]:
    """The schedule lock of the kernels: the rule, the point and the workload key, by name."""
    return {
        record.kernel: {
            "rule": record.rule,
            "point": dict(record.point),
            "workload": record.workload,
        }
        for record in records
    }


def _map(path: Path) -> memoryview:
    """Map a file privately: its arrays are writable, as DLPack wants, and never reach the disk."""
    if not path.is_file():
        path.stat()  # raises what is wrong with the path
        raise ArtifactError("not a regular file")
    with path.open("rb") as stream:
        if path.stat().st_size == 0:
            raise ArtifactError("the file is empty")
        return memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY))


def _decode(view: memoryview) -> Artifact:
    manifest, members = archive.read(view)
    form = manifest.get("format")
    forms = (FORMAT, REGION_FORMAT, GPU_FORMAT, OFFLOAD_FORMAT, COMPRESSED_FORMAT)
    if type(form) is not int or form not in forms:  # to Python, true is 1 too
        known = ", ".join(map(str, forms))
        raise ArtifactError(f"the artifact has format {form!r}; known: {known}")
    tensors = decode_weights(members["weights.safetensors"])
    several = form >= OFFLOAD_FORMAT
    code = tensors.pop(_DEVICE_CODE, None) if several or form == GPU_FORMAT else None
    regional = form == REGION_FORMAT or (several and "regions" in manifest)
    entries = _typed(manifest, "regions", list) if regional else []
    few = _typed(manifest, "compressed", list) if form == COMPRESSED_FORMAT else []
    weights, compressed = compression.read(few, region_store.without_added(tensors))
    loaded = form == OFFLOAD_FORMAT or (several and "offloads" in manifest)
    return Artifact(
        name=_typed(manifest, "name", str),
        inputs=_specs(manifest, "inputs"),
        outputs=_specs(manifest, "outputs"),
        target=_target(manifest),
        pipeline=_typed(manifest, "pipeline", str),
        library=bytes(members["lib.so"]),
        weights=weights,
        lock=archive.load_json(members["schedule.lock"], "schedule.lock"),
        report=archive.load_json(members["report.json"], "report.json"),
        certificate=_typed(manifest, "certificate", dict),
        toolchain=_typed(manifest, "toolchain", dict),
        alignment=_alignment(manifest),
        regions=region_store.read(entries, members, tensors),
        device=b"" if code is None else code.tobytes(),
        offloads=tuple(map(Offload.of_json, _typed(manifest, "offloads", list) if loaded else [])),
        compressed=compressed,
    )


def _typed(data: Json, key: str, kind: type) -> Any:
    if not isinstance(value := data.get(key), kind):
        raise ArtifactError(f"the manifest's {key!r} must be a {kind.__name__}, is {value!r:.60}")
    return value


def _alignment(manifest: Json) -> int:
    alignment: int = _typed(manifest, "alignment", int)
    if alignment < 1:
        raise ArtifactError(f"the manifest's 'alignment' must be positive, is {alignment}")
    return alignment


def _target(manifest: Json) -> dict[str, Any]:
    target: dict[str, Any] = _typed(manifest, "target", dict)
    features = target.get("features", [])
    if not isinstance(features, list) or not all(isinstance(name, str) for name in features):
        raise ArtifactError("the manifest's target features must be a list of names")
    device = target.get("gpu", {"arch": ""})
    if not isinstance(device, dict) or not isinstance(device.get("arch"), str):
        raise ArtifactError("the manifest's target gpu must name its architecture")
    return target


def _specs(manifest: Json, key: str) -> tuple[TensorSpec, ...]:
    return specs.from_json(_typed(manifest, key, list))
