"""PyTorch's own compiler."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from hybridc.compiler.measurement.peer import Call, Peer
from hybridc.compiler.model import Feed


@dataclass(frozen=True)
class Inductor(Peer):
    """`torch.compile` with frozen weights, as one does for inference; fp32 as the model says."""

    suffixes: ClassVar[tuple[str, ...]] = (".pt2",)
    packages: ClassVar[tuple[str, ...]] = ("torch",)

    def prepare(self, path: Path, feed: Feed, threads: int) -> Call:
        """Load the exported program and compile it; compiling takes place here, not in the call."""
        import torch
        import torch._inductor.config as inductor

        from hybridc.compiler.peers import _torch

        inductor.freezing = True
        module, positional, keyword = _torch.load(path, feed, threads)
        compiled = torch.compile(module)

        def call() -> object:
            with torch.no_grad():
                return compiled(*positional, **keyword)

        call()
        return call
