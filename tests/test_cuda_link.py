"""What a stream's holder gives back to a driver that is a fake."""

import gc

import pytest
from fake_driver import FakeDriver

from hybridc.compiler.cuda.link import Link
from hybridc.compiler.errors import InputError


@pytest.fixture
def driver() -> FakeDriver:
    """A driver that notes what it is asked."""
    return FakeDriver()


def test_pinned_memory_is_given_back(driver: FakeDriver) -> None:
    memory = Link(0, driver).pinned(100)
    assert (memory.nbytes, len(driver.held)) == (100, 1)
    part = memory[10:]
    del memory
    gc.collect()
    assert driver.held, "a part of it is in use"
    del part
    gc.collect()
    assert not driver.held


def test_streams_events_and_graphs_are_given_back(driver: FakeDriver) -> None:
    """Of sessions that come and go, and of a recording that ends in an error."""
    link = Link(0, driver)
    link.precede(5)

    def fails() -> None:
        raise InputError("the host computes a part of it")

    with pytest.raises(InputError):
        link.record(fails)
    assert driver.calls[-2:] == ["cuStreamEndCapture", "cuGraphDestroy"]
    graph, _ = link.record(lambda: None)
    driver.calls.clear()
    del link
    gc.collect()
    assert not driver.calls, "a graph is replayed on its stream"
    del graph
    gc.collect()
    assert sorted(driver.calls) == ["cuEventDestroy", "cuGraphExecDestroy", "cuStreamDestroy"]
