"""Kernels of an artifact that libraries compute: in its manifest, and as functions of a session."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridc.compiler.errors import ArtifactError, HybridcError, InputError, first_line
from hybridc.compiler.offload import backend as backends
from hybridc.compiler.offload.subgraph import Subgraph


@dataclass(frozen=True)
class Offload:
    """A kernel that compiled code calls by its name, and the backend that computes it."""

    name: str
    backend: str
    graph: Subgraph

    def to_json(self) -> dict[str, Any]:
        """What the manifest says of it."""
        return {"name": self.name, "backend": self.backend, "subgraph": self.graph.to_json()}

    @classmethod
    def of_json(cls, fields: object) -> "Offload":
        """Read what `to_json` wrote.  Raises ArtifactError if it is anything else."""
        match fields:
            case {"name": str(name), "backend": str(backend), "subgraph": dict(graph)}:
                return cls(name, backend, Subgraph.of_json(graph))
            case _:
                raise ArtifactError(f"the manifest describes a kernel wrongly: {fields!r:.60}")


def versions(offloads: Sequence[Offload], plugins: Sequence[Path] = ()) -> dict[str, str]:
    """The versions of all that the backends of these kernels need."""
    known = backends.backends(plugins)
    found: dict[str, str] = {}
    for name in sorted({each.backend for each in offloads}):
        found |= known.load(name).versions()
    return found


class Calls:
    """What compiled code calls for the kernels of an artifact.

    `plugins` are files that hold backends beside those that are installed.  `failure` is the error
    of a call that raised one: of that TVM keeps the text alone.  Raises ArtifactError if a
    library is missing.
    """

    def __init__(
        self, offloads: Sequence[Offload], threads: int, plugins: Sequence[Path] = ()
    ) -> None:
        self.failure: HybridcError | None = None
        used = _backends(offloads, plugins)
        self.functions: tuple[Callable[..., None], ...] = tuple(
            self._guarded(each, used[each.backend].build(each.graph, threads)) for each in offloads
        )

    def _guarded(self, offload: Offload, call: Callable[..., None]) -> Callable[..., None]:
        def guarded(*tensors: Any) -> None:
            try:
                call(*tensors)
            except Exception as error:  # whatever a library raises
                message = f"{offload.backend} fails in {offload.name}: {first_line(error)}"
                self.failure = InputError(message)
                raise self.failure from error

        return guarded


def _backends(offloads: Sequence[Offload], plugins: Sequence[Path]) -> dict[str, backends.Backend]:
    """The backends of these kernels by name."""
    if not offloads:
        return {}  # no entry point is looked for
    known, used = backends.backends(plugins), dict[str, backends.Backend]()
    for name, count in counted(offloads).items():
        try:
            used[name] = backends.create(name, known)
        except InputError as error:
            raise ArtifactError(f"{count} of its kernels are computed by {name}: {error}") from None
    return used


def counted(offloads: Sequence[Offload]) -> Mapping[str, int]:
    """How many kernels each backend computes."""
    names = [each.backend for each in offloads]
    return {name: names.count(name) for name in dict.fromkeys(names)}
