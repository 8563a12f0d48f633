"""What the rows of `gpu.py` share: the machine, what a row is, a peer's time, an error."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm

from hybridc.compiler.cuda import runtime
from hybridc.compiler.cuda.link import Link
from hybridc.compiler.target import Target

REPEATS = 20
_PROFILED = 5  # calls
_GRAPH, _MOST_IN_GRAPH = 2e-3, 200  # seconds, calls
Cells = dict[str, str]


@dataclass(frozen=True)
class Machine:
    """Where rows are measured: the GPU, or for a dry run this CPU; sizes may be made `small`.

    Where models spend their time is written into the folder `details`.
    """

    here: Target
    dry: bool = False
    small: bool = False
    details: Path | None = None

    @property
    def device(self) -> Any:
        """TVM's device."""
        return tvm.cpu() if self.dry else runtime.device(0)

    @property
    def torch_device(self) -> str:
        """Torch's name of it, or of the CPU where torch is built without CUDA."""
        import torch

        return "cuda" if not self.dry and torch.cuda.is_available() else "cpu"

    def wants_torch(self) -> None:
        """Raise RuntimeError where torch cannot be a peer here."""
        import torch

        if not self.dry and self.torch_device == "cpu":
            raise RuntimeError(f"torch {torch.__version__} has no GPU here")

    @property
    def counts(self) -> tuple[int, int]:
        """Calls in a row, and how often these are timed; a trial is no measurement."""
        return (1, 3) if self.small else (10, REPEATS)

    def in_a_graph(self, seconds: float) -> int:
        """How many calls of so many seconds a graph holds, so that its launch is little of it."""
        return 2 if self.small else int(min(_MOST_IN_GRAPH, max(1, _GRAPH / max(seconds, 1e-9))))

    def size(self, extent: int, part: int = 64) -> int:
        """An extent, or what a trial makes of it."""
        return max(16, extent // part) if self.small else extent


@dataclass(frozen=True)
class Row:
    """One line of a table: what is measured, the table, and the seconds that it may take.

    Those of the lowest `rank` are measured first.  `prepare` makes files in the row's folder, which
    `measure` gets, ahead and beside others, and needs no GPU; where it `warms` caches of others
    with one, that is done while nothing is timed.
    """

    table: str
    name: str
    limit: float
    measure: Callable[[Machine, Path], Cells]
    rank: int = 0
    prepare: Callable[[Machine, Path], object] | None = None
    warms: bool = False


def by_torch(call: Callable[..., Any], given: Sequence[Any], machine: Machine) -> float:
    """Seconds of one call, of some in a row between two of torch's events, or by the clock.

    Short calls take what their launches take: `replayed_by_torch` leaves these out.
    """
    import torch

    if machine.torch_device == "cpu":
        return _by_clock(call, given, machine)
    number, repeat = machine.counts
    for _ in range(3):
        call(*given)

    def several() -> None:
        for _ in range(number):
            call(*given)

    found = [_between_events(several) / number for _ in range(repeat)]
    torch.cuda.synchronize()
    return float(np.median(found))


def replayed_by_torch(call: Callable[..., Any], given: Sequence[Any], machine: Machine) -> float:
    """Seconds of one call of a kernel, of many in one CUDA graph, or by the clock."""
    import torch

    if machine.torch_device == "cpu":
        return _by_clock(call, given, machine)
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(3):
            call(*given)
        number = machine.in_a_graph(_between_events(lambda: call(*given)))
        with torch.cuda.graph(graph, stream=stream):
            for _ in range(number):
                call(*given)
        found: list[float] = []
        for _ in range(machine.counts[1]):
            graph.replay()  # what launching takes is over before this is
            found.append(_between_events(graph.replay) / number)
    return float(np.median(found))


def replayed(work: Callable[[], object], machine: Machine) -> float:
    """The same of work that TVM asks of the GPU, on a stream of its own."""
    link = Link(machine.device.index)
    machine.device.set_raw_stream(link.stream)
    try:
        for _ in range(3):
            work()
        number = machine.in_a_graph(link.timed(work, 1))

        def several() -> list[object]:
            return [work() for _ in range(number)]

        graph, _held = link.record(several)
        found: list[float] = []
        for _ in range(machine.counts[1]):
            graph.replay()
            found.append(link.timed(graph.replay, 1) / number)
        link.finish()
    finally:
        machine.device.set_raw_stream(0)
    return float(np.median(found))


def _between_events(work: Callable[[], object]) -> float:
    """Seconds that torch's current stream takes for some work."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def _by_clock(call: Callable[..., Any], given: Sequence[Any], machine: Machine) -> float:
    if machine.small:
        start = time.perf_counter()
        call(*given)
        return time.perf_counter() - start
    from hybridc.compiler.measurement import measure

    return float(np.median(measure.latency(lambda: call(*given), seconds=0.05).seconds))


def profile(call: Callable[..., Any], given: Sequence[Any], path: Path) -> None:
    """Write which of the GPU's kernels a call's time goes to, by torch's profiler."""
    import torch
    from torch.profiler import ProfilerActivity

    with torch.profiler.profile(activities=[ProfilerActivity.CUDA]) as seen:
        for _ in range(_PROFILED):
            call(*given)
        torch.cuda.synchronize()
    spent, times = Counter[str](), Counter[str]()
    for event in seen.events() or ():
        if event.device_type.name != "CPU":
            spent[event.name] += event.time_range.elapsed_us() / _PROFILED
            times[event.name] += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"{us:9.2f} {times[name] / _PROFILED:5.0f} {name}" for name, us in spent.most_common()]
    path.write_text("\n".join(["       µs times kernel", *lines, ""]))


def error(made: Any, right: Any) -> float:
    """The largest difference from torch's tensor, as a share of its largest element."""
    wide = np.asarray(made if isinstance(made, np.ndarray) else made.float().cpu(), "float32")
    true = right.float().cpu().numpy()
    if not np.isfinite(wide).all() or wide.shape != true.shape:
        return float("inf")
    return float(np.abs(wide - true).max() / max(np.abs(true).max(), 1e-30))
