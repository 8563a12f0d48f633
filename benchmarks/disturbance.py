"""How much longer calls take beside other programs, and what a watch on the machine then sees.

What the thresholds of `compiler/measurement/conditions.py` stand on: below them medians move by no
more than they do on a quiet machine.  `python benchmarks/disturbance.py [--seconds 0.5]`
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median, quantiles

import command_line
import markdown
import numpy as np
import onnx
from command_line import count
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.measurement.conditions import Conditions, Watch
from hybridc.compiler.model import random_feed
from hybridc.compiler.runtime.session import InferenceSession

THREADS = 2
_ROWS, _WIDTH, _LAYERS = 128, 512, 2  # of products that take all threads half a millisecond
# Shares of a core that another program uses, and for how long at a time it does: a time slice of
# the scheduler is some milliseconds.
_LOADS = (0.0, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0)
_TURN = 0.01
_START = 0.2  # seconds until it runs
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
    parser.add_argument("--rounds", type=count, default=3)
    options = parser.parse_args(arguments)
    markdown.show(_table(_call(), options.seconds, options.rounds))


def _model() -> onnx.ModelProto:
    """A chain of matrix products."""
    weight = np.random.default_rng(0).standard_normal((_WIDTH, _WIDTH)).astype(np.float32)
    nodes = [helper.make_node("MatMul", [f"x{i}", "w"], [f"x{i + 1}"]) for i in range(_LAYERS)]
    x, y = (
        helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, [_ROWS, _WIDTH])
        for i in (0, _LAYERS)
    )
    graph = helper.make_graph(nodes, "chain", [x], [y], [numpy_helper.from_array(weight, "w")])
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10)


def _call() -> Callable[[], object]:
    artifact = driver.compile_source(_model(), Options(threads=THREADS)).artifact
    session = InferenceSession(artifact, THREADS)
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
    """Call for some seconds while another program runs, which is no child of ours.

    What children use counts as our own load.
    """
    if not load:
        return _watched(load, call, seconds)
    command = [sys.executable, "-c", _BURN, str(load), str(_TURN)]
    started = subprocess.run(
        ["sh", "-c", '"$@" >&2 & echo $!', "sh", *command], stdout=subprocess.PIPE, check=True
    )
    try:
        time.sleep(_START)
        return _watched(load, call, seconds)
    finally:
        os.kill(int(started.stdout), signal.SIGKILL)


def _watched(load: float, call: Callable[[], object], seconds: float) -> Seen:
    watch, times = Watch(THREADS), list[float]()
    end = time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        call()
        times.append(time.perf_counter() - start)
        if len(times) % 100 == 0:
            watch.glance()
    return Seen(load, median(times), quantiles(times, n=10)[-1], watch.conditions())


if __name__ == "__main__":
    command_line.run(main)
