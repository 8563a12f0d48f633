"""Where a session's tensors lie: in the host's memory, or in a GPU's, with copies between them."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import tvm

from hybridc.compiler.cuda import order, presence, runtime
from hybridc.compiler.cuda.link import Link
from hybridc.compiler.cuda.resident import Holding, Resident
from hybridc.compiler.runtime.tensors import Tensor


@dataclass(frozen=True)
class Host:
    """The host as the device on which an artifact's `main` runs: nothing is copied."""

    device: Any
    on_host: bool = True

    def put(self, tensor: Tensor) -> Tensor:
        """The tensor itself."""
        return tensor

    def put_all(self, tensors: Sequence[Tensor], library: Any = None) -> list[Tensor]:
        """The tensors themselves."""
        return list(tensors)

    def fetch(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The tensors themselves."""
        return list(tensors)

    def handed(
        self, tensors: Sequence[Tensor], main: Callable[..., Any], library: Any
    ) -> list[Any]:
        """The tensors themselves."""
        return list(tensors)

    def replayed(
        self, main: Callable[..., Any], holding: Holding, by_torch: bool, by_host: bool
    ) -> Callable[..., Any]:
        """The function itself."""
        return main

    def called(self, functions: Sequence[tuple[Callable[..., None], int]]) -> list[Any]:
        """The functions themselves."""
        return [function for function, _ in functions]

    def mark(self) -> float:
        """A point in time of the work that was begun."""
        return time.perf_counter()

    def seconds(self, start: float, end: float) -> float:
        """Seconds between two marks."""
        return end - start

    def working(self) -> nullcontext[None]:
        """Nothing to prepare."""
        return nullcontext()


Placement = Host | Resident


def of(target: Mapping[str, Any]) -> Placement:
    """Where an artifact for a target runs.  Raises NoGpuError if this host has no such GPU."""
    if "gpu" not in target:
        return Host(tvm.cpu())
    index = presence.index(target)
    return Resident(runtime.device(index), Link(index), order.of_gpu(index))
