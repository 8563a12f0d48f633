"""A stream of one GPU, copies on it, pinned memory, and recorded graphs: by NVIDIA's driver.

TVM runs kernels on whatever stream it is told; what it lacks is here.  The driver is an argument,
so that tests can see the order of its calls.
"""

import ctypes
import weakref
from collections.abc import Callable
from contextlib import ExitStack
from ctypes import byref, c_int, c_size_t, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridc.compiler.cuda import driver as drivers
from hybridc.compiler.model import Array

# CU_STREAM_CAPTURE_MODE_RELAXED: memory may be allocated meanwhile, by other threads too.
_RELAXED = 2
_UNTIMED = 2  # CU_EVENT_DISABLE_TIMING


class Link:
    """One GPU, by its number; every call of it makes its context that of the calling thread.

    Work on its stream waits for that on the default stream, where others' work (torch's) is.
    Raises NoGpuError where the driver refuses.
    """

    def __init__(self, index: int, driver: Any = None) -> None:
        self.index = index
        self._driver = drivers.loaded() if driver is None else driver
        device, self._context, stream = c_int(), c_void_p(), c_void_p()
        self._call("cuDeviceGet", byref(device), index)
        self._call("cuDevicePrimaryCtxRetain", byref(self._context), device)
        self.enter()
        self._call("cuStreamCreate", byref(stream), 0)
        self.stream = int(stream.value or 0)
        weakref.finalize(self, self._driver.cuStreamDestroy_v2, stream)
        self.running = False  # whether the host left work on the stream that it did not wait for
        self._reached: c_void_p | None = None

    def enter(self) -> None:
        """Make the GPU's context that of this thread."""
        self._call("cuCtxSetCurrent", self._context)

    def upload(self, target: int, source: Array) -> None:
        """Begin to copy pinned memory to an address of the GPU."""
        where = c_void_p(source.ctypes.data)
        size = c_size_t(source.nbytes)
        self._call("cuMemcpyHtoDAsync_v2", c_void_p(target), where, size, c_void_p(self.stream))

    def download(self, target: Array, source: int) -> None:
        """Begin to copy from an address of the GPU to pinned memory."""
        where = c_void_p(target.ctypes.data)
        size = c_size_t(target.nbytes)
        self._call("cuMemcpyDtoHAsync_v2", where, c_void_p(source), size, c_void_p(self.stream))

    def copy(self, target: int, source: int, size: int) -> None:
        """Begin to copy from one address of the GPU to another."""
        pair = c_void_p(target), c_void_p(source)
        self._call("cuMemcpyDtoDAsync_v2", *pair, c_size_t(size), c_void_p(self.stream))

    def finish(self) -> None:
        """Wait until all that was begun is done."""
        self._call("cuStreamSynchronize", c_void_p(self.stream))
        self.running = False

    def precede(self, stream: int) -> None:
        """Let another's stream wait for what was begun; not the host.

        An action on the default stream (0) comes behind the work of all others, and before what
        these are given later (CUDA driver API, stream synchronization behavior).
        """
        self._wait(stream, self.stream)
        self.running = True

    def follow(self, stream: int) -> None:
        """Let what is begun from now on wait for what another's stream has to do."""
        if stream:  # the default stream is waited for anyway
            self._wait(self.stream, stream)

    def _wait(self, later: int, earlier: int) -> None:
        if self._reached is None:
            made = c_void_p()
            self._call("cuEventCreate", byref(made), _UNTIMED)
            weakref.finalize(self, self._driver.cuEventDestroy_v2, made)
            self._reached = made
        self._call("cuEventRecord", self._reached, c_void_p(earlier))
        self._call("cuStreamWaitEvent", c_void_p(later), self._reached, 0)

    def pinned(self, size: int) -> Array:
        """Bytes that the GPU copies to and from by itself; given back with the array."""
        place = c_void_p()
        self._call("cuMemHostAlloc", byref(place), c_size_t(max(1, size)), 0)
        address = int(place.value or 0)
        memory = (ctypes.c_ubyte * max(1, size)).from_address(address)
        weakref.finalize(memory, self._driver.cuMemFreeHost, c_void_p(address))
        view: Array = np.ctypeslib.as_array(memory)
        return view[:size]

    def allocated(self, size: int) -> int:
        """The address of so many bytes of the GPU, for as long as this process lives."""
        place = c_void_p()
        self._call("cuMemAlloc_v2", byref(place), c_size_t(size))
        return int(place.value or 0)

    def clear(self, target: int, size: int) -> None:
        """Begin to write zeros to an address of the GPU."""
        zero = ctypes.c_ubyte(0)
        self._call("cuMemsetD8Async", c_void_p(target), zero, c_size_t(size), c_void_p(self.stream))

    def mark(self) -> c_void_p:
        """A point in time that the GPU takes when all that was begun before is done."""
        made = c_void_p()
        self._call("cuEventCreate", byref(made), 0)
        weakref.finalize(made, self._driver.cuEventDestroy_v2, c_void_p(made.value))
        self._call("cuEventRecord", made, c_void_p(self.stream))
        return made

    def between(self, start: c_void_p, end: c_void_p) -> float:
        """Seconds between two marks; waits for them."""
        taken = ctypes.c_float()
        self._call("cuEventSynchronize", end)
        self._call("cuEventElapsedTime", byref(taken), start, end)
        return taken.value * 1e-3

    def timed(self, work: Callable[[], object], number: int) -> float:
        """Seconds of one call of `work`, the mean of some in a row, by the GPU's own clock."""
        start = self.mark()
        for _ in range(number):
            work()
        return self.between(start, self.mark()) / number

    def record(self, work: Callable[[], Any]) -> "tuple[Graph, Any]":
        """What `work` asks of the stream, as one launch; and what it returns.

        Nothing of it runs now.  Raises NoGpuError where it asks for what cannot be recorded.
        """
        graph, made = c_void_p(), c_void_p()
        self._call("cuStreamBeginCapture_v2", c_void_p(self.stream), _RELAXED)
        with ExitStack() as behind:
            behind.callback(self._driver.cuGraphDestroy, graph)
            try:
                result = work()
            finally:
                ended = self._driver.cuStreamEndCapture(c_void_p(self.stream), byref(graph))
            drivers.check(self._driver, ended, "record a graph")
            self._call("cuGraphInstantiateWithFlags", byref(made), graph, ctypes.c_ulonglong(0))
        found = Graph(self, int(made.value or 0))
        weakref.finalize(found, self._driver.cuGraphExecDestroy, c_void_p(found.handle))
        return found, result

    def launch(self, handle: int) -> None:
        """Begin to run a graph."""
        self._call("cuGraphLaunch", c_void_p(handle), c_void_p(self.stream))

    def _call(self, name: str, *arguments: Any) -> None:
        drivers.check(self._driver, getattr(self._driver, name)(*arguments), f"do {name}")


@dataclass(frozen=True, eq=False)
class Graph:
    """Recorded work of a stream."""

    link: Link
    handle: int

    def replay(self) -> None:
        """Begin to run it again, on what lies at the same addresses now."""
        self.link.launch(self.handle)
