"""A session's tensors on a GPU: copied there by way of pinned memory, and back.

Inputs keep their places on the GPU from call to call, so that recorded graphs find them there.
"""

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm

from hybridc.compiler.cuda import callers, torch_graphs
from hybridc.compiler.cuda.graphs import Graphs
from hybridc.compiler.cuda.host_calls import HostCall, unrecorded
from hybridc.compiler.cuda.link import Link
from hybridc.compiler.cuda.order import Order
from hybridc.compiler.cuda.pinned import on_bytes, size_of
from hybridc.compiler.model import Array
from hybridc.compiler.runtime import tensors
from hybridc.compiler.runtime.tensors import Tensor

Holding = Callable[[list[Any]], Callable[..., Any]]
Places = dict[tuple[int, tuple[int, ...]], Any]


@dataclass(frozen=True)
class Resident:
    """A GPU as the device on which an artifact's `main` runs.

    `device` is TVM's; on it lie the weights, the inputs and the results of a session.
    Sessions that share its memory share an `order`.
    """

    device: Any
    link: Link
    order: Order = field(default_factory=Order)
    on_host: bool = False
    _inputs: Places = field(default_factory=dict[tuple[int, tuple[int, ...]], Any])
    _results: Places = field(default_factory=dict[tuple[int, tuple[int, ...]], Any])

    def put(self, tensor: Tensor) -> Tensor:
        """The tensor where the GPU reads it for good, as weights are; a copy if it is not there."""
        return tensor if self._is_here(tensor) else tensor.copyto(self.device)

    def put_all(self, given: Sequence[Tensor], library: Any = np) -> list[Tensor]:
        """The inputs of a call: copied to their places, unless they lie on the GPU.

        What torch's current stream has to do comes first, where they are of that `library`.
        """
        with self.working():
            self._follow(library)
            return [self._placed(place, tensor) for place, tensor in enumerate(given)]

    def fetch(self, made: Sequence[Tensor]) -> list[Tensor]:
        """The tensors in the host's memory, the caller's own, once they are computed."""
        with self.working():
            pinned = [self._pinned(place, tensor) for place, tensor in enumerate(made)]
            for memory, tensor in zip(pinned, made, strict=True):
                if memory.nbytes:
                    self.link.download(memory, tensor.data_ptr())
            self.link.finish()
        return [_owned(memory, tensor) for memory, tensor in zip(pinned, made, strict=True)]

    def mark(self) -> Any:
        """A point in time of the work that was begun, by the GPU's clock."""
        return self.link.mark()

    def seconds(self, start: Any, end: Any) -> float:
        """Seconds between two marks that the GPU has passed."""
        return self.link.between(start, end)

    def called(self, functions: Sequence[tuple[Callable[..., None], int]]) -> list[Any]:
        """Functions of the host's as `main` calls them with tensors on the GPU.

        The number beside each tells how many tensors it reads before those that it fills.
        """
        return [HostCall(function, reads, self.link) for function, reads in functions]

    def replayed(
        self, main: Callable[..., Any], holding: Holding, by_torch: bool, by_host: bool
    ) -> Graphs:
        """`main` as a function whose calls are recorded and replayed as graphs.

        `holding` makes another `main` that keeps in a list what it allocates.  The graphs are those
        of torch, where some of its kernels are torch's own; there are none where the host computes
        a part.
        """
        stream = self.link.stream
        record = torch_graphs.recorder(self.device, stream) if by_torch else self.link.record
        return Graphs(main, holding, unrecorded if by_host else record, self.working)

    def handed(self, made: Sequence[Tensor], main: Callable[..., Any], library: Any) -> list[Any]:
        """What `main` made, for a caller of a library: numpy's on the host, others' on the GPU.

        No later call writes their memory.  They are computed when this returns, but for those of
        torch, whose current stream waits for them.  Torch's are in its own memory, which it keeps
        from others as long as any of its streams reads it (`record_stream`); TVM's would be given
        again at once.
        """
        if library is np:
            return self.fetch(made)
        with self.working():
            lent = isinstance(main, Graphs) and main.lent
            copied = lent or callers.allocates(library)
            found = self._copies(made, library) if copied else list(made)
            current = callers.stream(library, self.link.index)
            if current is None:
                self.link.finish()
            else:
                self.link.precede(current)
        return found

    def _follow(self, library: Any) -> None:
        """Have the session's stream wait for the caller's."""
        current = callers.stream(library, self.link.index)
        if current is not None:
            self.link.follow(current)

    @contextmanager
    def working(self) -> Generator[None]:
        """Have TVM's kernels of this thread on the session's stream, when it is its turn."""
        self.link.enter()
        with self.order.turn(self.link):
            self.device.set_raw_stream(self.link.stream)
            try:
                yield
            finally:
                self.device.set_raw_stream(0)

    def _placed(self, place: int, tensor: Tensor) -> Tensor:
        if self._is_here(tensor):
            return tensor
        key = place, tuple(tensor.shape)
        if key not in self._inputs:
            there = tvm.runtime.empty(tuple(tensor.shape), str(tensor.dtype), self.device)
            for other in [each for each in self._inputs if each[0] == place]:
                if self.link.running:
                    self.link.finish()  # the last call may still be copying from what goes now
                del self._inputs[other]  # of another size; one is kept for each input
            self._inputs[key] = there, self.link.pinned(size_of(tensor))
        there, memory = self._inputs[key]
        if memory.nbytes:
            if self.link.running:
                self.link.finish()  # the last call may still be copying from here
            np.copyto(memory, _bytes(tensor))
            self.link.upload(there.data_ptr(), memory)
        return there

    def _pinned(self, place: int, tensor: Tensor) -> Array:
        key = place, (size_of(tensor),)
        if key not in self._results:
            for other in [each for each in self._results if each[0] == place]:
                del self._results[other]
            self._results[key] = self.link.pinned(size_of(tensor))
        found: Array = self._results[key]
        return found

    def _copies(self, made: Sequence[Tensor], library: Any) -> list[Any]:
        """Copies on the GPU, which no later call writes."""
        found = [callers.room(library, tensor, self.device) for tensor in made]
        self._follow(library)  # what it still does may be with the memory that it gave
        for copy, tensor in zip(found, made, strict=True):
            if size := size_of(tensor):
                self.link.copy(copy.data_ptr(), tensor.data_ptr(), size)
        return found

    def _is_here(self, tensor: Tensor) -> bool:
        return str(tensor.device) == str(self.device)


def _bytes(tensor: Tensor) -> Array:
    """What a tensor of the host holds."""
    return np.from_dlpack(tensor._create_view((size_of(tensor),), "uint8"))


def _owned(memory: Array, tensor: Tensor) -> Tensor:
    """A tensor of the host with the bytes of pinned memory, which the next call overwrites."""
    own = tensors.empty(memory.shape, memory.dtype)
    np.copyto(own, memory)
    return on_bytes(own, tuple(tensor.shape), str(tensor.dtype))
