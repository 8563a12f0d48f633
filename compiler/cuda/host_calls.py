"""Functions that the host computes between a GPU's kernels: what they read is copied, and back."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

from hybridc.compiler.cuda.link import Link
from hybridc.compiler.cuda.pinned import on_bytes, size_of
from hybridc.compiler.errors import InputError
from hybridc.compiler.runtime.tensors import ALIGNMENT, Tensor, placed

Staged = tuple[Any, Tensor]  # pinned memory, and the tensor of the host's that lies on it


@dataclass(frozen=True)
class HostCall:
    """A function of the host's, for tensors on a GPU: `reads` of them, then those that it fills.

    It runs once the kernels before it are done.  Its copies have pinned memory that they keep, so
    it gets the same addresses each time.
    """

    function: Callable[..., None]
    reads: int
    link: Link
    _staged: dict[int, Staged] = field(default_factory=dict[int, Staged])

    def __call__(self, *given: Tensor) -> None:
        """Copy, compute, and begin to copy the results to where the kernels behind it read."""
        staged = [self._place(place, tensor) for place, tensor in enumerate(given)]
        pairs = list(zip(staged, given, strict=True))
        for (memory, _), tensor in pairs[: self.reads]:
            if memory.nbytes:
                self.link.download(memory, tensor.data_ptr())
        self.link.finish()  # and what the last call uploaded has left its memory
        self.function(*(copy for _, copy in staged))
        for (memory, _), tensor in pairs[self.reads :]:
            if memory.nbytes:
                self.link.upload(tensor.data_ptr(), memory)
        self.link.running = True

    def _place(self, place: int, tensor: Tensor) -> Staged:
        shape, dtype = tuple(tensor.shape), str(tensor.dtype)
        known = self._staged.get(place)
        if known is None or (tuple(known[1].shape), str(known[1].dtype)) != (shape, dtype):
            if known is not None and self.link.running:
                self.link.finish()  # the last call may still be copying from what goes now
            size = size_of(tensor)
            pinned = self.link.pinned(size + ALIGNMENT)
            memory = placed(pinned, (size,), np.dtype(np.uint8))
            known = memory, on_bytes(memory, shape, dtype)
            self._staged[place] = known
        return known


def unrecorded(_: Callable[[], Any]) -> NoReturn:
    """A recorder of graphs that records nothing, since the host has its part in every call."""
    raise InputError("the host computes a part of it")
