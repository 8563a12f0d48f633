"""PyTorch as it runs a model when nothing compiles it."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hybridc.compiler.measurement.peer import Call, Peer
from hybridc.compiler.model import Feed


@dataclass(frozen=True)
class Eager(Peer):
    """PyTorch in eager mode, fp32 as the model says."""

    suffixes: ClassVar[tuple[str, ...]] = (".pt2",)
    packages: ClassVar[tuple[str, ...]] = ("torch",)

    def prepare(self, path: Path, feed: Feed, threads: int) -> Call:
        """Load the exported program and run its operators one by one."""
        import torch

        from hybridc.compiler.peers import _torch

        module, positional, keyword = _torch.load(path, feed, threads)

        def call() -> object:
            with torch.inference_mode():
                return module(*positional, **keyword)

        return call
