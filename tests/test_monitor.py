"""The monitor: sources that are there and are not, figures by hand, and what sampling may cost."""

import json
import subprocess
import sys
import time
import types
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import example_monitored
import pytest

from hybridc.compiler.errors import InputError
from hybridc.compiler.monitoring import monitor, observe
from hybridc.compiler.monitoring.monitor import COST, Monitor
from hybridc.compiler.monitoring.monitored import Series, show
from hybridc.compiler.monitors.memory import Memory
from hybridc.compiler.monitors.nvidia import Nvidia
from hybridc.compiler.monitors.processor import Processor
from hybridc.compiler.monitors.rapl import Rapl
from hybridc.compiler.monitors.source import AbsentError, Channel
from hybridc.compiler.processes.process_tree import ProcessTree


class Counting:
    """A source that tells how often it was read, and may burn time or fail."""

    channels: Sequence[Channel] = (
        Channel("test", "count", "B"),
        Channel("test", "rate", "W", True),
    )

    def __init__(self, burn: float = 0.0, fail_at: int = 0) -> None:
        self.burn, self.fail_at, self.count = burn, fail_at, 0

    def read(self, seconds: float) -> Sequence[float | None]:
        self.count += 1
        if self.count == self.fail_at:
            raise OSError(5, "Input/output error")
        end = time.thread_time() + self.burn
        while time.thread_time() < end:
            continue
        return [float(self.count), 1.0 if seconds else None]

    def totals(self) -> dict[str, float]:
        return {"device": 2.5}


def missing(_: ProcessTree) -> Counting:
    raise AbsentError("it is not built in")


def test_readings_are_taken_from_the_beginning_to_the_end() -> None:
    source = Counting()
    with Monitor(0.01, {"one": lambda _: source, "other": missing}) as watch:
        time.sleep(0.1)
        while source.count < 2:  # the last comes as it ends
            time.sleep(0.01)
    found = watch.result()
    count, rate = found.series
    assert count.values[0] == 1
    assert count.high == source.count >= 3
    assert len(rate.values) == len(count.values) - 1  # a rate needs a reading before
    assert list(count.times) == sorted(count.times)
    assert count.times[-1] == found.seconds >= 0.1
    assert found.absent == {"other": "it is not built in"}
    assert found.joules == {"device": 2.5}
    assert "not monitored: other: it is not built in" in found.text()
    assert (
        json.loads(json.dumps(found.to_json(), allow_nan=False))["series"][0]["max"] == count.high
    )


def test_sampling_waits_until_it_is_cheap() -> None:
    with Monitor(0.001, {"dear": lambda _: Counting(burn=0.002)}) as watch:
        time.sleep(0.7)
    found = watch.result()
    # Of readings of 2 ms, one fits into each 200 ms; the last comes when the work ends.
    assert len(found.series[0].values) <= found.seconds / (0.002 / COST) + 2
    assert found.cost <= 2 * COST


def test_a_source_that_fails_is_lost_and_said() -> None:
    with Monitor(0.01, {"flaky": lambda _: Counting(fail_at=2)}) as watch:
        time.sleep(0.05)
    found = watch.result()
    assert "lost after" in found.absent["flaky"]
    assert "Input/output error" in found.absent["flaky"]


def test_figures_weigh_by_time_and_curves_are_thinned() -> None:
    made = Series(Channel("g", "n", "W"))
    made.add(0.0, 100.0, 0.0)
    made.add(1.0, 1.0, 1.0)
    made.add(4.0, 5.0, 3.0)
    assert (made.low, made.high, made.mean) == (1.0, 100.0, 4.0)
    assert made.points(2) == [(1.0, 50.5), (4.0, 5.0)]
    made.thin()
    assert list(made.values) == [1.0]
    assert made.mean == 4.0
    assert [show(2e9, "B"), show(1.5, "cores"), show(97.3, "%")] == ["2 GB", "1.50 cores", "97 %"]


def test_this_machine_is_sampled_and_a_child_is_counted() -> None:
    processes = ProcessTree(clock=iter(range(1000)).__next__)  # looks for children at every reading
    start = time.perf_counter()
    processor, memory = Processor(processes), Memory(processes)
    before = memory.read(0.0)[0]
    burn = "import time; x = bytearray(80_000_000)\nend = time.process_time() + 0.3\n"
    burn += "while time.process_time() < end: pass\nprint(flush=True); input()"
    command = [sys.executable, "-c", burn]
    used = processes.seconds()
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    child: Any
    with subprocess.Popen(command, **pipes) as child:
        assert child.stdout is not None
        child.stdout.readline()
        tree, machine, *cores = processor.read(time.perf_counter() - start)
        assert processes.seconds() - used >= 0.3
        after = memory.read(0.0)[0]
        child.communicate(b"\n")
    assert after is not None
    assert before is not None
    assert after - before > 60e6
    assert tree is not None
    assert machine is not None
    assert 0 < tree <= machine <= len(cores)


def zone(root: Path, place: str, name: str, counter: str) -> Path:
    folder = root / place
    folder.mkdir()
    (folder / "name").write_text(f"{name}\n")
    (folder / "energy_uj").write_text(counter)
    (folder / "max_energy_range_uj").write_text("1000000000")
    return folder / "energy_uj"


def test_energy_by_rapl(tmp_path: Path) -> None:
    package = zone(tmp_path, "intel-rapl:0", "package-0", "999000000")
    zone(tmp_path, "intel-rapl:0:0", "core", "5")  # part of the package
    dram = zone(tmp_path, "intel-rapl:0:1", "dram", "0")
    source = Rapl(tmp_path)
    assert [channel.name for channel in source.channels] == ["package-0", "dram"]
    package.write_text("4000000")  # began again at 0: 1 J before, 4 J after
    dram.write_text("500000")
    assert list(source.read(0.5)) == [10.0, 1.0]
    assert source.totals() == {"package-0": 5.0, "dram": 0.5}
    with pytest.raises(AbsentError, match="no energy counters"):
        Rapl(tmp_path / "none")
    dram.unlink()
    with pytest.raises(AbsentError, match="cannot be read"):
        Rapl(tmp_path)


def nvml(count: int = 1) -> Any:
    """A stand-in for the bindings: a GPU that counts energy and tells no utilisation."""
    module: Any = types.ModuleType("pynvml")
    energy = iter((1000.0, 4000.0, 9000.0))

    class NVMLError(Exception):
        pass

    def refuse(_: Any) -> Any:
        raise NVMLError("Not Supported")

    module.NVMLError, module.nvmlInit = NVMLError, lambda: None
    module.nvmlDeviceGetCount = lambda: count
    module.nvmlDeviceGetHandleByIndex = lambda index: index
    module.nvmlDeviceGetUtilizationRates = refuse
    module.nvmlDeviceGetMemoryInfo = lambda _: types.SimpleNamespace(used=5, total=10)
    module.nvmlDeviceGetPowerUsage = lambda _: 70_000
    module.nvmlDeviceGetTotalEnergyConsumption = lambda _: next(energy)
    return module


def test_a_gpu_by_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    source = Nvidia()
    assert [(c.group, c.unit, c.most) for c in source.channels] == [
        ("GPU memory", "B", 10.0),
        ("power", "W", None),
    ]
    assert list(source.read(1.0)) == [5.0, 70.0]
    assert source.totals() == {"GPU 0": 3.0}
    monkeypatch.setitem(sys.modules, "pynvml", nvml(0))
    with pytest.raises(AbsentError, match="shows none"):
        Nvidia()
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(AbsentError, match="not installed"):
        Nvidia()


@pytest.mark.parametrize("text", ["fast", "1ns", "2h", "-1s", ""])
def test_an_interval_that_is_none(text: str) -> None:
    with pytest.raises(InputError):
        monitor.interval(text)


def test_marks_put_passes_together() -> None:
    with observe.observed(observe.Monitoring(monitor=True, monitor_interval="10ms")) as seen:
        with seen.timeline.span("load", "stage"):
            time.sleep(0.02)
        for name in ("fuse", "schedule"):
            with seen.timeline.span(name, "pass"), seen.timeline.span("kernel", "kernel"):
                time.sleep(0.01)
        found = seen.monitored()
    assert found is not None
    assert [mark.name for mark in found.marks] == ["load", "passes"]
    assert found.marks[0].end <= found.marks[1].start <= found.marks[1].end <= found.seconds


def test_what_it_says_is_json() -> None:
    made = example_monitored.make()
    brief = made.brief()
    assert "times_s" not in brief["series"][0]
    assert brief["energy_j"] == {"package-0": 1234.5}
    assert len(json.dumps(brief)) < 3000
