"""What other programs do is told apart from what our own threads do."""

import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from hybridc.compiler.hardware import host, load
from hybridc.compiler.hardware.load import Load


class Times:
    """CPU times as psutil gives them."""

    def __init__(self, **given: float) -> None:
        zero = ("user", "nice", "system", "irq", "softirq", "steal")
        vars(self).update(dict.fromkeys(zero, 0.0) | given)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """A machine of two cores whose clocks a test sets."""
    state: dict[str, Any] = {"now": 0.0, "cores": [Times(), Times(), Times(user=9.0)], "own": 0.0}
    monkeypatch.setattr(load.time, "perf_counter", lambda: state["now"])
    monkeypatch.setattr(load.psutil, "cpu_times", lambda **_: state["cores"])
    monkeypatch.setattr(host, "allowed_cpus", lambda: frozenset({0, 1}))
    monkeypatch.setattr(load, "used_by_us", lambda: state["own"])
    return state


def test_what_we_used_is_taken_off(clock: dict[str, Any]) -> None:
    watch = Load()
    clock.update(now=2.0, own=2.5, cores=[Times(user=2.0), Times(system=1.0), Times(user=99.0)])
    assert watch.others() == pytest.approx(0.25)  # the third core is not ours to use


def test_time_that_a_hypervisor_took_counts(clock: dict[str, Any]) -> None:
    watch = Load()
    clock.update(now=1.0, cores=[Times(steal=1.0), Times(irq=0.5, softirq=0.5), Times()])
    assert watch.others() == pytest.approx(2.0)


def test_counting_errors_do_not_make_it_negative(clock: dict[str, Any]) -> None:
    watch = Load()
    assert watch.others() == 0.0  # no time has passed
    clock.update(now=1.0, own=1.0)
    assert watch.others() == 0.0


SPIN = "while True: pass"


@pytest.fixture
def spinner() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", SPIN]) as process:
        yield process
        process.kill()


def test_children_are_our_own(spinner: subprocess.Popen[bytes]) -> None:
    """Read from the process table alone, so that a busy machine does not disturb the test."""
    before = load.used_by_us()
    child = psutil.Process(spinner.pid)
    while child.cpu_times().user < 0.1:
        time.sleep(0.01)
    assert load.used_by_us() - before >= 0.09
    spinner.kill()
    spinner.wait()
    assert load.used_by_us() - before >= 0.09  # those that ended count as well


def test_it_waits_for_our_threads_to_rest(
    clock: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sleep(seconds: float) -> None:
        clock["now"] += seconds
        clock["own"] += seconds if clock["now"] < 0.3 else 0.0

    monkeypatch.setattr(load.time, "sleep", sleep)
    load.come_to_rest()
    assert 0.3 <= clock["now"] <= 0.4


def test_it_does_not_wait_for_ever(clock: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(seconds: float) -> None:
        clock["now"] += seconds
        clock["own"] += seconds

    monkeypatch.setattr(load.time, "sleep", sleep)
    load.come_to_rest()
    assert clock["now"] == pytest.approx(1.0, abs=0.1)
