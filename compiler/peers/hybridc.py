"""The compiler's own artifacts, run as users run them."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hybridc.compiler.measurement.peer import Call, Peer
from hybridc.compiler.model import Feed


@dataclass(frozen=True)
class Hybridc(Peer):
    """An artifact of this compiler, through InferenceSession."""

    suffixes: ClassVar[tuple[str, ...]] = (".hyb",)
    packages: ClassVar[tuple[str, ...]] = ("hybridc", "apache-tvm")

    def prepare(self, path: Path, feed: Feed, threads: int) -> Call:
        """Load the artifact; the thread count is that of TVM's pool, whatever it was built for."""
        from hybridc.compiler.session import InferenceSession

        session = InferenceSession(path, threads)
        return lambda: session.run(None, feed)
