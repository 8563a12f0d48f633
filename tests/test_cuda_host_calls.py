"""Functions of the host's in a model on a GPU that is a fake: their pinned memory."""

import gc
from typing import Any

import numpy as np
import tvm
from fake_driver import FakeDriver

from hybridc.compiler.cuda.host_calls import HostCall
from hybridc.compiler.cuda.link import Link
from hybridc.compiler.cuda.resident import Resident

UPLOAD, WAIT, FREE = "cuMemcpyHtoDAsync", "cuStreamSynchronize", "cuMemFreeHost"


class NotingDriver(FakeDriver):
    """The fake, which notes also where pinned memory is given back."""

    def cuMemFreeHost(self, place: Any) -> int:  # noqa: N802 - the driver's name
        self.calls.append(FREE)
        return super().cuMemFreeHost(place)


def tensor(*numbers: float) -> Any:
    return tvm.runtime.tensor(np.array(numbers, np.float32))


def order(driver: FakeDriver) -> list[str]:
    """What became of pinned memory: copies from it, waits for these, and its end."""
    return [call for call in driver.calls if call in (UPLOAD, WAIT, FREE)]


def test_memory_of_another_size_goes_once_the_last_call_has_copied_from_it() -> None:
    driver = NotingDriver()

    def doubled(x: Any, y: Any) -> None:
        np.copyto(np.from_dlpack(y), np.multiply(np.from_dlpack(x), 2))

    call = HostCall(doubled, 1, Link(0, driver))
    few, many = tensor(0, 0), tensor(0, 0, 0)
    call(tensor(1, 2), few)
    call(tensor(1, 2, 3), many)
    gc.collect()
    found = order(driver)
    assert found[: found.index(FREE)] == [WAIT, UPLOAD, WAIT]
    assert found.count(FREE) == 2
    np.testing.assert_array_equal(few.numpy(), [2, 4])
    np.testing.assert_array_equal(many.numpy(), [2, 4, 6])


def test_an_input_of_another_size_waits_for_the_copy_of_the_last() -> None:
    class Host(Resident):
        def _is_here(self, tensor: Any) -> bool:
            return False

        def put_one(self, tensor: Any) -> None:
            self._placed(0, tensor)
            self.link.running = True

    driver = NotingDriver()
    place = Host(tvm.cpu(), Link(0, driver))
    place.put_one(tensor(1, 2))
    place.put_one(tensor(1, 2, 3))
    gc.collect()
    assert order(driver) == [UPLOAD, WAIT, FREE, UPLOAD]
