"""What a backend is: a vendor library that may compute kernels of a model.

A backend is a plug-in: one file in `compiler/backends/`, an entry point of the group
`hybridc.compiler.backends`, or a file passed by `--plugin`.  Which kernels it gets is decided by
measurement (`offload.choice`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.installation.packages import installed
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.subgraph import Subgraph
from hybridc.compiler.plugin import Catalogue, Plugin, catalogue
from hybridc.compiler.target import CPU, Target

# Our own kernels, which compute everything that no library is faster at.
OWN = "tvm"
# Takes the operands of a subgraph in their order, and the tensor to write the result into.
Call = Callable[..., None]


@dataclass(frozen=True)
class Backend(Plugin, ABC):
    """A library that computes subgraphs on DLPack tensors, in place.

    `packages` are the distributions that it needs, both to choose it and to run an artifact.
    """

    packages: ClassVar[tuple[str, ...]]
    device: ClassVar[str] = CPU  # the kind of target whose kernels it computes
    overhead: ClassVar[float] = 5e-6  # seconds of one call, whatever is computed

    @classmethod
    def missing(cls) -> str:
        """Why it cannot be used on this host, and the remedy; empty if it can."""
        absent = [package for package in cls.packages if not installed(package)]
        named = " ".join(absent)
        # Of torch the extra names the version: the newest may bring gigabytes for GPUs.
        cure = " ".join("'hybridc[torch]'" if each == "torch" else each for each in absent)
        return f"{named} is not installed: pip install {cure}" if absent else ""

    @classmethod
    def versions(cls) -> Mapping[str, str]:
        """The versions of its packages, for the manifest."""
        return {package: version(package) for package in cls.packages}

    @abstractmethod
    def supports(self, graph: Subgraph, target: Target) -> NotApplicable | None:
        """Return why it does not compute a subgraph, or None if it does."""

    def cost(self, graph: Subgraph, target: Target) -> float:
        """The minimum seconds of one call, by analysis; if ours is faster, it is not measured."""
        machine = target.machine
        if target.gpu is not None:
            moved = graph.bytes / target.gpu.bandwidth
            return self.overhead + max(graph.flops / target.gpu.half, moved)
        each = 2 * target.lanes() * machine.fma_per_cycle * target.threads * machine.hertz
        return self.overhead + graph.flops / each

    @abstractmethod
    def build(self, graph: Subgraph, threads: int) -> Call:
        """A function that computes the subgraph.

        Constants are the same tensors in every call, so what is made from them is made once.
        """


def backends(files: Sequence[Path] = ()) -> Catalogue[Backend]:
    """All known backends: ours, those in entry points, and those in `files`."""
    return catalogue("hybridc.compiler.backends", Backend, files)


def create(name: str, known: Catalogue[Backend]) -> Backend:
    """A backend by its name, ready for use.

    Raises InputError if there is none of the name, or its library is missing, and PluginError if
    its file defines no backend.
    """
    if name not in known.names():
        raise InputError(f"no backend is named {name!r}; {hint(name, (OWN, *known.names()))}")
    backend = known.create(name)
    if absent := backend.missing():
        raise InputError(f"backend {name} cannot be used here: {absent}")
    return backend


def select(names: Sequence[str], device: str, files: Sequence[Path] = ()) -> tuple[Backend, ...]:
    """The backends of these names, besides our own; `files` may define further ones.

    Raises InputError for one that is unknown, for another kind of target, or not usable here.
    """
    known = backends(files)
    wanted = [name for name in dict.fromkeys(names) if name != OWN]
    for name in wanted:
        if name in known.names() and known.load(name).device != device:
            fitting = [each for each, kind in known.all() if kind.device == device]
            offered = ", ".join((OWN, *fitting))
            raise InputError(f"backend {name} is not for target kind {device}; it has {offered}")
    return tuple(create(name, known) for name in wanted)
