"""Work of several sessions on one GPU, and results in the memory of the caller's library."""

import threading
from typing import Any

import numpy as np
import pytest
import tvm
from fake_driver import MESSAGES, FakeDevice, FakeDriver

from hybridc.compiler.cuda import driver as drivers
from hybridc.compiler.cuda import faults
from hybridc.compiler.cuda.link import Link
from hybridc.compiler.cuda.order import Order, of_gpu
from hybridc.compiler.cuda.resident import Resident

BEHIND = ["cuEventRecord", "cuStreamWaitEvent"]
ILLEGAL = 700


def placed(driver: FakeDriver, order: Order) -> Resident:
    """A session's place on the fake."""
    device: Any = FakeDevice(driver)
    return Resident(device, Link(0, driver), order)


def test_a_session_waits_for_the_work_of_the_last_one() -> None:
    """TVM's pool gives it the memory that kernels of the other may still be using."""
    driver, order = FakeDriver(), Order()
    one, other = placed(driver, order), placed(driver, order)
    waits: list[bool] = []
    for place in (one, one, other, other, one):
        driver.calls.clear()
        with place.working():
            waits.append(driver.calls[-3:-1] == BEHIND)
    assert waits == [False, False, True, False, True]


def test_sessions_of_one_gpu_share_an_order() -> None:
    assert of_gpu(0) is of_gpu(0)
    assert of_gpu(0) is not of_gpu(1)


def test_one_thread_at_a_time_gives_work() -> None:
    driver, order = FakeDriver(), Order()
    one, other = placed(driver, order), placed(driver, order)
    entered = threading.Event()

    def work() -> None:
        with other.working():
            entered.set()

    thread = threading.Thread(target=work)
    with one.working(), one.working():  # as what it calls may do
        thread.start()
        assert not entered.wait(0.1)
    thread.join(600)
    assert entered.is_set()


def test_results_of_torchs_callers_are_in_torchs_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of plain calls too: TVM would give the memory again while a second stream still reads it."""
    torch = pytest.importorskip("torch")
    driver = FakeDriver()
    place = placed(driver, Order())
    given: list[Any] = []
    plain = torch.empty

    def empty(shape: Any, dtype: Any, device: str) -> Any:
        assert device == "cpu:0"  # where the fake's tensors are
        given.append(plain(shape, dtype=dtype))
        return given[-1]

    monkeypatch.setattr(torch, "empty", empty)
    made = tvm.runtime.tensor(np.arange(6, dtype=np.float32))
    (found,) = place.handed([made], lambda: None, torch)
    assert found is given[0]
    np.testing.assert_array_equal(found.numpy(), np.arange(6))


def test_who_waits_for_a_kernel_tells_of_its_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels fail asynchronously: the wait for them, a call of the driver's, says so."""
    monkeypatch.setitem(MESSAGES, ILLEGAL, b"an illegal memory access was encountered")
    link = Link(0, FakeDriver(fails={"cuStreamSynchronize": ILLEGAL}))
    with pytest.raises(drivers.NoGpuError, match=r"cannot use it any more: .*illegal") as raised:
        link.finish()
    assert faults.is_sticky(str(raised.value))
    again = faults.told(raised.value)
    assert str(again) == str(raised.value)


@pytest.mark.parametrize(
    "said", ["invalid program counter", "unknown error", "the launch timed out and was terminated"]
)
def test_what_no_later_call_survives_is_known(said: str) -> None:
    assert faults.is_sticky(f"NVIDIA's driver cannot do cuStreamSynchronize: {said}")
    assert faults.is_sticky(f"CUDA: {said}")
    assert not faults.is_sticky(said)
    assert not faults.is_sticky("CUDA: too many resources requested for launch")
