"""Where a session's tensors lie: in the host's memory, or in a GPU's, with copies between them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tvm

from hybridc.compiler.cuda import presence
from hybridc.compiler.tensors import Tensor


@dataclass(frozen=True)
class Placement:
    """The device on which an artifact's `main` runs; the host is one too."""

    device: Any
    on_host: bool

    def put(self, tensor: Tensor) -> Tensor:
        """The tensor where the device reads it: itself, or a copy."""
        return (
            tensor if self.on_host or _is_there(tensor, self.device) else tensor.copyto(self.device)
        )

    def fetch(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors in the host's memory, once they are computed."""
        return list(tensors) if self.on_host else [each.copyto(tvm.cpu()) for each in tensors]

    def finish(self) -> None:
        """Wait until what was asked of the device is done."""
        if not self.on_host:
            self.device.sync()


def of(target: Mapping[str, Any]) -> Placement:
    """Where an artifact for a target runs.  Raises NoGpuError where this host has no such GPU."""
    if "gpu" not in target:
        return Placement(tvm.cpu(), on_host=True)
    return Placement(tvm.cuda(presence.index(target)), on_host=False)


def _is_there(tensor: Tensor, device: Any) -> bool:
    return str(tensor.device) == str(device)
