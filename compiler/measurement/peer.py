"""What a peer is: another way to run the same model, which `hybridc bench` sets beside ours.

A peer is a plug-in, one file in `compiler/peers/`.  It runs in a process of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from hybridc.compiler.errors import InputError
from hybridc.compiler.installation.packages import installed
from hybridc.compiler.model import Feed
from hybridc.compiler.plugin import Catalogue

Call = Callable[[], object]


@dataclass(frozen=True)
class Peer(ABC):
    """Loads a model file of the kinds `suffixes` and makes a call that computes its outputs.

    `packages` are the distributions that it needs; their versions stand in the result.
    """

    suffixes: ClassVar[tuple[str, ...]]
    packages: ClassVar[tuple[str, ...]]

    @abstractmethod
    def prepare(self, path: Path, feed: Feed, threads: int) -> Call:
        """Load and compile the model for `threads` threads; the call runs it once on `feed`.

        `feed` is in the order of the model's inputs.  Everything that a user would do once
        belongs here; the call takes numpy arrays in and gives host memory back.
        """

    def with_plugins(self, files: Sequence[Path]) -> "Peer":
        """The peer for a model that needs plug-ins of hybridc, which others know nothing of."""
        del files
        return self

    @classmethod
    def versions(cls) -> Mapping[str, str]:
        """The versions of the peer's packages.

        Raises PackageNotFoundError if one is not installed.
        """
        return {package: version(package) for package in cls.packages}

    @classmethod
    def missing(cls) -> tuple[str, ...]:
        """The packages that are not installed."""
        return tuple(package for package in cls.packages if not installed(package))


def peers() -> Catalogue[Peer]:
    """Every peer known: ours and those of entry points of the group `hybridc.compiler.peers`."""
    return Catalogue("hybridc.compiler.peers", Peer)


def renamed(feed: Feed, names: Sequence[str]) -> Feed:
    """The feed by the names that a model file has, which another exporter may have chosen.

    Names that differ are matched in order.  Raises InputError if the numbers differ.
    """
    if set(names) == set(feed):
        return feed
    if len(names) != len(feed):
        raise InputError(f"the model's inputs are {', '.join(names)}, not {', '.join(feed)}")
    return dict(zip(names, feed.values(), strict=True))
