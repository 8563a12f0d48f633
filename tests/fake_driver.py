# ruff: noqa: N802 - the names are those of the driver
"""A driver of NVIDIA's that is none: it notes the order of calls, and copies in the host's memory.

What `cuStreamBeginCapture` records it does at once, as the host's kernels do, and a launch of the
graph does it again; `work` is what the test's `main` does then.
"""

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

OUT_OF_MEMORY, CAPTURE_UNSUPPORTED = 2, 900
MESSAGES = {
    OUT_OF_MEMORY: b"out of memory",
    CAPTURE_UNSUPPORTED: b"operation not permitted when stream is capturing",
}


@dataclass
class FakeDriver:
    """Answers 0 to every call, but for those that `fails` has a status for.

    `calls` are the names in their order, without what only asks or makes contexts current.
    """

    version: int = 13_000
    fails: dict[str, int] = field(default_factory=dict[str, int])
    calls: list[str] = field(default_factory=list[str])
    held: dict[int, Any] = field(default_factory=dict[int, Any])
    work: Callable[[], None] = lambda: None

    def cuInit(self, _: int) -> int:
        return 0

    def cuDriverGetVersion(self, number: Any) -> int:
        number._obj.value = self.version
        return 0

    def cuGetErrorString(self, status: int, told: Any) -> int:
        told._obj.value = MESSAGES.get(status, b"unknown error")
        return 0

    def cuCtxSetCurrent(self, _: Any) -> int:
        return 0

    def cuMemHostAlloc(self, place: Any, size: Any, _: int) -> int:
        if status := self._noted("cuMemHostAlloc"):
            return status
        memory = ctypes.create_string_buffer(size.value)
        place._obj.value = ctypes.addressof(memory)
        self.held[place._obj.value] = memory
        return 0

    def cuMemFreeHost(self, place: Any) -> int:
        self.held.pop(place.value)
        return 0

    def cuStreamCreate(self, stream: Any, _: int) -> int:
        stream._obj.value = 77
        return 0

    def cuMemcpyHtoDAsync_v2(self, target: Any, source: Any, size: Any, stream: Any) -> int:
        return self._copied("cuMemcpyHtoDAsync", target, source, size, stream)

    def cuMemcpyDtoHAsync_v2(self, target: Any, source: Any, size: Any, stream: Any) -> int:
        return self._copied("cuMemcpyDtoHAsync", target, source, size, stream)

    def cuMemcpyDtoDAsync_v2(self, target: Any, source: Any, size: Any, stream: Any) -> int:
        return self._copied("cuMemcpyDtoDAsync", target, source, size, stream)

    def cuGraphLaunch(self, _graph: Any, stream: Any) -> int:
        assert stream.value == 77
        status = self._noted("cuGraphLaunch")
        self.work()
        return status

    def __getattr__(self, name: str) -> Callable[..., int]:
        if not name.startswith("cu"):
            raise AttributeError(name)
        plain = name.removesuffix("_v2")
        if plain in ("cuDeviceGet", "cuDevicePrimaryCtxRetain"):
            return lambda *_: 0
        return lambda *_: self._noted(plain)

    def _copied(self, name: str, target: Any, source: Any, size: Any, stream: Any) -> int:
        assert stream.value == 77, "copies are on the session's stream"
        if status := self._noted(name):
            return status
        ctypes.memmove(target.value, source.value, size.value)
        return 0

    def _noted(self, name: str) -> int:
        self.calls.append(name)
        return self.fails.get(name, 0)


class FakeDevice:
    """The host as TVM's device of a session on a GPU: it only notes the streams that it is told."""

    def __init__(self, driver: FakeDriver) -> None:
        self.driver = driver

    def set_raw_stream(self, stream: int) -> None:
        self.driver.calls.append(f"stream {stream}")

    def __str__(self) -> str:
        return "cuda:0"
