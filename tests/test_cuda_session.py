"""Sessions on a GPU that is a fake: the order of copies, kernels and graphs; what goes wrong.

The fake's memory is the host's, and TVM's kernels are the host's too; `test_gpu.py` has the same
on a device.
"""

import ctypes
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tvm
from fake_driver import CAPTURE_UNSUPPORTED, OUT_OF_MEMORY, FakeDevice, FakeDriver
from small_models import B, W, X, dense_artifact

from hybridc.compiler.cuda import driver as drivers
from hybridc.compiler.cuda import faults
from hybridc.compiler.cuda.graphs import Graphs
from hybridc.compiler.cuda.link import Link
from hybridc.compiler.cuda.resident import Resident
from hybridc.compiler.errors import ArtifactError, InputError
from hybridc.compiler.runtime import loading
from hybridc.compiler.runtime.session import InferenceSession

UPLOAD, DOWNLOAD, WAIT = "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuStreamSynchronize"
ON, OFF = "stream 77", "stream 0"


class Host(Resident):
    """A resident of the fake: its tensors are the host's, but count as those of a GPU."""

    def _is_here(self, tensor: Any) -> bool:
        return False


@pytest.fixture
def driver() -> FakeDriver:
    """A driver that notes what it is asked."""
    return FakeDriver()


@pytest.fixture
def session(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> InferenceSession:
    """A session of `y = x @ w + b`, `z = y + y` on the fake."""
    return made(driver, monkeypatch)


def made(driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> InferenceSession:
    """A session on the fake; its `main` is noted as `main`."""

    class Device(FakeDevice):
        """TVM's CPU, which is asked for tensors, behind the fake's notes."""

    device = Device(driver)
    place = Host(device, Link(0, driver))
    monkeypatch.setattr(Resident, "put", lambda _, tensor: tensor)
    monkeypatch.setattr(loading, "placed", lambda _: place)
    plain = tvm.runtime.empty

    def empty(shape: Any, dtype: str, where: Any = None) -> Any:
        return plain(shape, dtype, tvm.cpu() if where is device else where)

    monkeypatch.setattr(tvm.runtime, "empty", empty)
    real = tvm.relax.VirtualMachine
    monkeypatch.setattr("tvm.relax.VirtualMachine", lambda lib, _: real(lib, tvm.cpu()))
    opened: Any = InferenceSession(dense_artifact())
    graphs: Any = opened._main
    main = graphs.main

    def noted(*given: Any) -> Any:
        driver.calls.append("main")
        found = main(*given)
        kept = [each for each in (list(found) if not hasattr(found, "shape") else [found])]

        def again() -> None:
            for old, new in zip(kept, main(*given), strict=True):
                np.copyto(np.from_dlpack(old), np.from_dlpack(new))

        driver.work = again
        return kept

    graphs.main, graphs.holding = noted, lambda _: noted
    driver.calls.clear()
    return opened


def right(x: Any) -> Any:
    return x @ W + B


def test_inputs_go_by_pinned_memory_and_results_come_the_same_way(
    session: InferenceSession, driver: FakeDriver
) -> None:
    y, z = session.run(None, {"x": X})
    np.testing.assert_allclose(y, right(X), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(z, 2 * right(X), rtol=1e-5, atol=1e-5)
    assert driver.calls == [
        *(ON, "cuMemHostAlloc", UPLOAD, OFF),
        *(ON, "main", OFF),
        *(ON, "cuMemHostAlloc", "cuMemHostAlloc", DOWNLOAD, DOWNLOAD, WAIT, OFF),
    ]


def test_the_second_call_allocates_nothing(session: InferenceSession, driver: FakeDriver) -> None:
    session.run(None, {"x": X})
    driver.calls.clear()
    session.run(None, {"x": X})
    assert "cuMemHostAlloc" not in driver.calls


def test_the_third_call_is_recorded_and_later_ones_are_replayed(
    session: InferenceSession, driver: FakeDriver
) -> None:
    for _ in range(2):
        session.run(None, {"x": X})
    driver.calls.clear()
    session.run(None, {"x": X})
    begin, end = "cuStreamBeginCapture", "cuStreamEndCapture"
    replayed = [ON, "cuGraphLaunch", OFF]
    recorded = [begin, "main", end, "cuGraphInstantiateWithFlags", "cuGraphDestroy"]
    assert driver.calls[3:] == [ON, *recorded, *replayed[1:], ON, DOWNLOAD, DOWNLOAD, WAIT, OFF]
    driver.calls.clear()
    y, _ = session.run(None, {"x": 3 * X})
    assert driver.calls == [ON, UPLOAD, OFF, *replayed, ON, DOWNLOAD, DOWNLOAD, WAIT, OFF]
    np.testing.assert_allclose(y, right(3 * X), rtol=1e-5, atol=1e-5)


def test_answers_are_the_callers_own(session: InferenceSession) -> None:
    found = [session.run(None, {"x": k * X})[0] for k in range(6)]
    for k, y in enumerate(found):
        np.testing.assert_allclose(y, right(k * X), rtol=1e-5, atol=1e-5)


def test_results_are_copied_for_torch_that_keeps_them_on_the_gpu(
    session: InferenceSession, driver: FakeDriver
) -> None:
    """What a graph computed, whose next replay writes there, and what plain calls did."""
    torch = pytest.importorskip("torch")
    found = [session(torch.from_numpy(k * X))[0] for k in range(4)]
    for k, y in enumerate(found):
        np.testing.assert_allclose(y.numpy(), right(k * X), rtol=1e-5, atol=1e-5)
    assert driver.calls.count("cuMemcpyDtoDAsync") == 2 * 4


def test_torch_gives_the_memory_and_its_current_stream_waits_for_what_is_left_running(
    session: InferenceSession, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing waits on the host, but for the memory from which inputs are being copied."""
    torch = pytest.importorskip("torch")
    stream = SimpleNamespace(cuda_stream=0)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda _: stream)
    given = torch.from_numpy(X)
    for _ in range(3):
        session(given)
    driver.calls.clear()
    y, _ = session(given)
    copied = "cuMemcpyDtoDAsync"
    behind = ["cuEventRecord", "cuStreamWaitEvent"]
    assert driver.calls == [
        *(ON, WAIT, UPLOAD, OFF, ON, "cuGraphLaunch", OFF),
        *(ON, copied, copied, *behind, OFF),
    ]
    np.testing.assert_allclose(y.numpy(), right(X), rtol=1e-5, atol=1e-5)
    stream.cuda_stream = 5
    driver.calls.clear()
    session(given)
    assert driver.calls == [
        *(ON, *behind, WAIT, UPLOAD, OFF, ON, "cuGraphLaunch", OFF),
        *(ON, *behind, copied, copied, *behind, OFF),
    ]


def test_what_cannot_be_recorded_stays_plain_and_is_noted(
    session: InferenceSession, driver: FakeDriver
) -> None:
    driver.fails["cuStreamEndCapture"] = CAPTURE_UNSUPPORTED
    for _ in range(5):
        y, _ = session.run(None, {"x": X})
        np.testing.assert_allclose(y, right(X), rtol=1e-5, atol=1e-5)
    assert driver.calls.count("cuStreamBeginCapture") == 1
    inner: Any = session
    graphs: Any = inner._main
    assert graphs.notes == [
        "calls are not replayed as a graph: NVIDIA's driver cannot record a graph:"
        " operation not permitted when stream is capturing"
    ]


def test_a_graph_keeps_what_is_computed_in_between() -> None:
    """By TVM's machine on the host: every storage that a call takes is in the list."""
    held: list[Any] = []
    opened: Any = InferenceSession(dense_artifact())
    main = loading.holding(loading.library(opened.artifact.library), tvm.cpu(), held)
    main(tvm.runtime.tensor(X), *opened._last)
    assert any("Storage" in str(type(each)) for each in held)


def test_graphs_are_few(driver: FakeDriver) -> None:
    class Result:
        def data_ptr(self) -> int:
            return 0

    class Input:
        def __init__(self, address: int) -> None:
            self.address, self.shape = address, (1,)

        def data_ptr(self) -> int:
            return self.address

    class Recorded:
        def replay(self) -> None:
            driver.calls.append("replay")

    def main(*_: Any) -> Any:
        return Result()

    graphs: Any = Graphs(main, lambda _: main, lambda work: (Recorded(), work()))
    for address in range(40):
        for _ in range(4):
            graphs(Input(address))
    assert len(graphs._known) == 8
    assert driver.calls.count("replay") == 2 * 40


def test_too_old_a_driver_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    drivers.loaded.cache_clear()
    monkeypatch.setattr(ctypes, "CDLL", lambda _: FakeDriver(version=12_040))
    with pytest.raises(drivers.NoGpuError, match=r"too old: it is for CUDA 12\.4, .* needs 13\.0"):
        drivers.loaded()
    drivers.loaded.cache_clear()


def test_no_pinned_memory_is_one_line(
    session: InferenceSession, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver.fails["cuMemHostAlloc"] = OUT_OF_MEMORY
    with pytest.raises(InputError, match="out of memory") as raised:
        session.run(None, {"x": X})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Check failed: CUDA: out of memory", "the GPU is out of memory"),
        ("CUDA_ERROR_NO_BINARY_FOR_GPU", "compile it for this one"),
        ("CUDA: an illegal memory access was encountered", "cannot use it any more"),
        ("CUDA driver version is insufficient for CUDA runtime version", "driver is too old"),
    ],
)
def test_faults_of_a_gpu_are_told_in_a_line(
    text: str, said: str, session: InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner: Any = session
    graphs: Any = inner._main

    def broken(*_: Any) -> Any:
        raise RuntimeError(f"Traceback (most recent call last):\n{text}\nmore")

    graphs.main = broken
    with pytest.raises(InputError, match=said) as raised:
        session.run(None, {"x": X})
    assert "\n" not in str(raised.value)
    assert raised.value.exit_code == 2


def test_weights_that_do_not_fit_are_one_line(
    driver: FakeDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(Host):
        def put(self, tensor: Any) -> Any:
            raise RuntimeError("CUDA: out of memory")

    place = Full(FakeDevice(driver), Link(0, driver))
    with pytest.raises(ArtifactError, match="'model' cannot be loaded: the GPU is out of memory"):
        loading.uploaded(dense_artifact(), place)


def test_other_errors_are_no_faults_of_the_gpu() -> None:
    assert faults.told(ValueError("illegal memory access")) is None
    assert faults.is_sticky("CUDA error: an illegal memory access was encountered")
    assert not faults.is_sticky("CUDA: out of memory")
