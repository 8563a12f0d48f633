"""What a backend is: a vendor library that may compute a kernel of a model.

A backend is a plug-in, one file in `compiler/backends/`, or an entry point of the group
`hybridc.compiler.backends`.  Which kernels it gets is measured, see `offload.choice`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import ClassVar

from hybridc.compiler.errors import InputError, PluginError, hint
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.offload.subgraph import Subgraph
from hybridc.compiler.plugin import Catalogue
from hybridc.compiler.target import CPU, Target

# Our own kernels, which compute what nobody else is faster at.
OWN = "tvm"
# Takes the operands of a subgraph in their order, and the tensor to write the result into.
Call = Callable[..., None]


@dataclass(frozen=True)
class Backend(ABC):
    """A library that computes subgraphs, on DLPack tensors where they lie.

    `packages` are the distributions that it needs, to measure with and to run an artifact.
    """

    packages: ClassVar[tuple[str, ...]]
    device: ClassVar[str] = CPU  # the kind of target whose kernels it computes
    overhead: ClassVar[float] = 5e-6  # seconds of one call, whatever is computed

    @classmethod
    def missing(cls) -> str:
        """Why it cannot be used on this host, with the cure; nothing where it can."""
        absent = [package for package in cls.packages if not installed(package)]
        named = " ".join(absent)
        return f"{named} is not installed: pip install {named}" if absent else ""

    @classmethod
    def versions(cls) -> Mapping[str, str]:
        """The versions of its packages, for the manifest."""
        return {package: version(package) for package in cls.packages}

    @abstractmethod
    def supports(self, graph: Subgraph, target: Target) -> NotApplicable | None:
        """Say why it does not compute a subgraph, or nothing where it does."""

    def cost(self, graph: Subgraph, target: Target) -> float:
        """Seconds of one call at least, by analysis: what takes longer is not even measured."""
        machine = target.machine
        if target.gpu is not None:
            moved = graph.bytes / target.gpu.bandwidth
            return self.overhead + max(graph.flops / target.gpu.half, moved)
        each = 2 * target.lanes() * machine.fma_per_cycle * target.threads * machine.hertz
        return self.overhead + graph.flops / each

    @abstractmethod
    def build(self, graph: Subgraph, threads: int) -> Call:
        """What computes the subgraph.

        Constants are the same tensors in every call: what is made of them is made once.
        """


def backends() -> Catalogue[Backend]:
    """Every backend known: ours, and those of entry points."""
    return Catalogue("hybridc.compiler.backends", Backend)


def names() -> tuple[str, ...]:
    """What `--backends` takes."""
    return (OWN, *backends().names())


def created(name: str) -> Backend:
    """A backend by its name, ready to be used.

    Raises InputError where there is none of the name, or its library is not here.
    """
    try:
        made = backends().create(name)
    except PluginError:
        raise InputError(f"no backend is named {name!r}; {hint(name, names())}") from None
    if absent := made.missing():
        raise InputError(f"backend {name} cannot be used here: {absent}")
    return made


def chosen(given: Sequence[str], device: str) -> tuple[Backend, ...]:
    """The backends that are named, besides our own.

    Raises InputError for one that is unknown, of another kind of target, or not usable here.
    """
    wanted = [name for name in dict.fromkeys(given) if name != OWN]
    for name in wanted:
        if name in backends().names() and backends().load(name).device != device:
            fitting = [each for each, kind in backends().all() if kind.device == device]
            known = ", ".join((OWN, *fitting))
            raise InputError(f"backend {name} is not for target kind {device}; it has {known}")
    return tuple(map(created, wanted))


def installed(package: str) -> bool:
    """Whether a distribution is installed."""
    try:
        return bool(version(package))
    except PackageNotFoundError:
        return False
