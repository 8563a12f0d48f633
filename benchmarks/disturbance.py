"""How much longer calls take beside other programs, and what a watch on the machine then sees.

What the thresholds of `compiler/measurement/conditions.py` stand on: below them medians move by no
more than they do on a quiet machine.  `python benchmarks/disturbance.py [--seconds 0.5]`
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

import markdown

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.measurement.conditions import Conditions, Watch
from hybridc.compiler.model import random_feed
from hybridc.compiler.session import InferenceSession

THREADS = 2
MODEL = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"
# Shares of a core that another program uses, and for how long at a time it does: a time slice of
# the scheduler is some milliseconds.
_LOADS = (0.0, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_TURN = 0.01
_BURN = """import sys, time
share, turn = float(sys.argv[1]), float(sys.argv[2])
while True:
    end = time.perf_counter() + share * turn
    while time.perf_counter() < end:
        pass
    time.sleep((1 - share) * turn)
"""


@dataclass(frozen=True)
class Seen:
    """Calls beside another program: their median and spread in seconds, and what was watched."""

    load: float
    median: float
    late: float
    conditions: Conditions


def main(arguments: Sequence[str] | None = None) -> None:
    """Time calls beside ever more load, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=0.5, help="at each load, in each round")
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="hybridc-") as folder:
        path = Path(folder) / "digits.hyb"
        driver.compile_source(MODEL, Options(threads=THREADS)).artifact.save(path)
        markdown.show(_table(_call(path), given.seconds, given.rounds))


def _call(path: Path) -> Callable[[], object]:
    session = InferenceSession(path, THREADS)
    feed = random_feed(session.artifact.inputs, 0)
    return lambda: session.run(None, feed)


def _table(call: Callable[[], object], seconds: float, rounds: int) -> Iterator[str]:
    yield markdown.head(("load", "median", "9 of 10 within", "seen busy", "drift", "quiet"))
    found: dict[float, list[Seen]] = {load: [] for load in _LOADS}
    for _ in range(rounds):
        for load in _LOADS:
            found[load].append(_beside(load, call, seconds))
    alone = median(each.median for each in found[0.0])
    for load, each in found.items():
        ratio = median(one.median for one in each) / alone
        late = median(one.late for one in each) / alone
        busy = ", ".join(f"{one.conditions.busy:.2f}" for one in each)
        drift = ", ".join(f"{one.conditions.drift:.3f}" for one in each)
        quiet = f"{sum(one.conditions.quiet for one in each)} of {len(each)}"
        cells = f"{ratio:.3f}", f"{late:.2f}", busy, drift, quiet
        yield markdown.row((f"{load:.0%} of a core", *cells))
    yield f"* Ratios to the median without load, {alone * 1e6:.1f} µs; {THREADS} threads."


def _beside(load: float, call: Callable[[], object], seconds: float) -> Seen:
    """Call for some seconds while another program runs."""
    command = [sys.executable, "-c", _BURN, str(load), str(_TURN)]
    other = subprocess.Popen(command) if load else None
    try:
        time.sleep(0.1)
        return _watched(load, call, seconds)
    finally:
        if other is not None:
            other.kill()
            other.wait()


def _watched(load: float, call: Callable[[], object], seconds: float) -> Seen:
    watch, times = Watch(THREADS), list[float]()
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        call()
        times.append(time.perf_counter() - start)
        if len(times) % 2000 == 0:
            watch.glance()
    return Seen(load, median(times), quantiles(times, n=10)[-1], watch.conditions())


if __name__ == "__main__":
    main()
