"""The compiler's own artifacts, run as users run them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from hybridc.compiler.measurement.peer import Call, Peer
from hybridc.compiler.model import Feed


@dataclass(frozen=True)
class Hybridc(Peer):
    """An artifact of this compiler, through InferenceSession."""

    suffixes: ClassVar[tuple[str, ...]] = (".hyb",)
    packages: ClassVar[tuple[str, ...]] = ("hybridc", "apache-tvm")
    plugins: tuple[Path, ...] = ()

    def with_plugins(self, files: Sequence[Path]) -> "Hybridc":
        """The peer for an artifact whose backends are in these files."""
        return replace(self, plugins=tuple(files))

    def prepare(self, path: Path, feed: Feed, threads: int) -> Call:
        """Load the artifact; the thread count is that of TVM's pool, whatever it was built for."""
        from hybridc.compiler.runtime.session import InferenceSession

        session = InferenceSession(path, threads, self.plugins)
        return lambda: session.run(None, feed)
