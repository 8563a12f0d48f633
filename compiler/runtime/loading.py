"""Load what a session needs of an artifact; each error names the artifact."""

import os
import re
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import tvm
from tvm import relax

from hybridc.compiler.artifacts.artifact import REGION_RUNTIME, Artifact
from hybridc.compiler.cuda import faults
from hybridc.compiler.cuda.driver import NoGpuError
from hybridc.compiler.delegation.region_runtime import RegionSet
from hybridc.compiler.dims import Dim
from hybridc.compiler.errors import ArtifactError, HybridcError, InputError
from hybridc.compiler.filesystem import scratch
from hybridc.compiler.filesystem.files import reason
from hybridc.compiler.hardware import host
from hybridc.compiler.model import OpaqueSpec
from hybridc.compiler.offload.calls import Calls
from hybridc.compiler.runtime import carriers, placement
from hybridc.compiler.runtime.placement import Placement
from hybridc.compiler.runtime.tensors import Tensor, to_tensor

_ENTRY = "vm_load_executable"  # what TVM's virtual machine calls first of a library
# How it says of `main` that its arguments are others than those it was compiled for.
_REFUSALS = ("ErrorContext(fn=main, loc=param[", "Invoking function main expects")
# The same of the branch that an input chooses.
_BRANCH = re.compile(r"ErrorContext\(fn=branch_(?:true|false), loc=param\[\d+\], param=([^,]+),")


def path_of(artifact: Any) -> str | Path:
    """The path of an artifact.  Raises InputError if it is none."""
    if not isinstance(artifact, str | PathLike):
        raise InputError(f"expected an artifact or its path, got {type(artifact).__name__}")
    return Path(artifact)


def check_host(artifact: Artifact) -> None:
    """Raise ArtifactError if this host lacks what the artifact needs."""
    if unfit := artifact.unfit():
        raise ArtifactError(f"artifact {artifact.name!r} runs on a GPU: {unfit}")
    if lacking := artifact.lacking():
        raise ArtifactError(
            f"artifact {artifact.name!r} needs CPU features that {host.cpu_model()} lacks: "
            f"{', '.join(lacking)}; compile it for this host with --target cpu"
        )


def placed(artifact: Artifact) -> Placement:
    """Where it runs.  Raises ArtifactError if this host has no such GPU."""
    try:
        return placement.of(artifact.target)
    except NoGpuError as error:
        raise ArtifactError(f"artifact {artifact.name!r} runs on a GPU: {error}") from error


def regions(artifact: Artifact, threads: int) -> RegionSet:
    """What ONNX Runtime computes of it.  Raises ArtifactError if that is missing."""
    try:
        return RegionSet(artifact.regions, threads)
    except ArtifactError as error:
        version = artifact.toolchain.get(REGION_RUNTIME)
        raise ArtifactError(
            f"artifact {artifact.name!r}, compiled with {REGION_RUNTIME} {version}: {error}"
        ) from error


def uploaded(artifact: Artifact, place: Placement) -> tuple[Tensor, ...]:
    """Its weights where it runs.  Raises ArtifactError if they do not fit."""
    try:
        return tuple(place.put(to_tensor(array)) for array in artifact.weights.values())
    except Exception as error:
        failure = None if place.on_host else faults.told(error)
        if failure is None:
            raise
        raise ArtifactError(f"artifact {artifact.name!r} cannot be loaded: {failure}") from error


def offloads(artifact: Artifact, threads: int) -> Calls:
    """What libraries compute of it.  Raises ArtifactError if one is missing."""
    try:
        return Calls(artifact.offloads, threads, artifact.plugins)
    except ArtifactError as error:
        raise ArtifactError(f"artifact {artifact.name!r}: {error}") from error


def holding(library: Any, device: Any, held: list[Any]) -> Any:
    """A `main` whose calls add all that they make to a list, for whoever needs it to stay."""
    machine = relax.VirtualMachine(library, device)

    def hold(_func: object, _name: str, before: bool, result: Any, *_: object) -> int:
        if not before:
            held.append(result)
        return 0

    machine.set_instrument(hold)
    return machine["main"]


def mismatch(artifact: Artifact) -> ArtifactError:
    """What is to be said of a manifest or weights that belong to another library."""
    return ArtifactError(
        f"artifact {artifact.name!r}: its manifest or its weights are not those of its library"
    )


def refused(artifact: Artifact, error: Exception) -> HybridcError | None:
    """What it means that a library does not take what the manifest says it takes, if that is it.

    A branch that an input chooses may take fewer sizes than there are.
    """
    if found := _BRANCH.search(str(error)):
        return InputError(
            "the sizes of inputs do not fit each other in the branch that is chosen: those of "
            f"{found[1]!r} are others than the rest implies"
        )
    return mismatch(artifact) if any(text in str(error) for text in _REFUSALS) else None


def require_results(artifact: Artifact, results: Sequence[Tensor]) -> None:
    """Raise ArtifactError if a library gives other results than the manifest says."""
    if len(results) != len(artifact.outputs):
        raise mismatch(artifact)
    for spec, result in zip(artifact.outputs, results, strict=True):
        if isinstance(spec, OpaqueSpec):
            continue
        pairs = zip(spec.shape, result.shape, strict=False)
        sized = all(isinstance(size, Dim) or size == extent for size, extent in pairs)
        alike = sized and len(spec.shape) == len(result.shape)
        if not alike or str(result.dtype) != carriers.carrier(spec.dtype):
            raise mismatch(artifact)


def library(content: bytes, device: bytes = b"") -> Any:
    """Load the library from a private file that is gone before anyone could change it.

    `device` is the machine code of its kernels on a GPU.
    """
    try:
        scratch.check_code()
        with scratch.Folder() as folder:  # of mode 0700
            path = Path(folder) / "lib.so"
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            loaded = _load(str(path), device)
    except OSError as error:
        raise ArtifactError(f"cannot unpack the artifact's library: {reason(error)}") from error
    except RuntimeError as error:
        first = str(error).strip().split("\n", 1)[0]
        raise ArtifactError(f"cannot load the artifact's library: {first}") from error
    if not loaded.implements_function(_ENTRY):
        raise ArtifactError("cannot load the artifact's library: it is not a compiled model")
    return loaded


def _load(path: str, device: bytes) -> Any:
    if not device:
        return tvm.runtime.load_module(path)
    from hybridc.compiler.cuda import codegen

    return codegen.load(path, device)
