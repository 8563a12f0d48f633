"""The tuning log: how fast records go in and winners come out, with a million records."""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from statistics import median

import command_line
from _pytest.outcomes import Skipped
from command_line import count

from hybridc.compiler.log import access
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.log.store import TuningLog

sys.path.append(str(Path(__file__).parent.parent / "tests"))
import postgres

_RECORDS = 1_000_000
_WRITTEN, _BATCH = 40_000, 4_000
_RATE, _LOOKUP = 5000, 1e-3  # what is asked for
_KERNELS = 2000
_LOOKUPS = 2000
_TARGET = Described.of("target", {"kind": "cpu", "threads": 2})
_OTHER = Described.of("target", {"kind": "cpu", "threads": 4})
_TOOLS = Described.of("toolchain", {"tvm": "of the benchmark"})


def main() -> None:
    """Fill logs, ask them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=count, default=_RECORDS)
    parser.add_argument("--keep", type=Path, help="a folder whose log is used, or filled and left")
    options = parser.parse_args()
    rows: list[str] = []
    with ExitStack() as stack:
        folder = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = folder / "log.sqlite"
        rows += _measure("SQLite", str(path), options.records)
        size = path.stat().st_size / options.records
    head = ["| what | measured | asked for |", "|---|---|---|"]
    notes = [
        "",
        f"* Look-ups among {options.records / 1e6:.2g} million records; {size:.0f} bytes each.",
    ]
    with suppress(Skipped), postgres.server() as url:
        rows += _measure("PostgreSQL", url, options.records // 10)
        notes.append("* PostgreSQL, on this machine, holds a tenth of that.")
    print("\n".join([*head, *rows, *notes]))


def _measure(title: str, url: str, records: int) -> list[str]:
    """Rows of one database: how fast it takes records and answers."""
    with access.open_log(url) as log:
        log.describe([*_kernels(), _TARGET, _OTHER, _TOOLS])
        if not len(log):
            log.add(_records(records, seed=1))
        _lookups(log, _TARGET, lambda draw: draw.choice(_KEYS))  # so that its pages are in memory
        hits = _lookups(log, _TARGET, lambda draw: draw.choice(_KEYS))
        near = _lookups(log, _OTHER, lambda draw: draw.choice(_KEYS))
        misses = _lookups(log, _TARGET, lambda _: "0" * 64)
        rates = [_rate(log, batch) for batch in _batches()]
    # How far a server is away is not ours to promise.
    rate, answer = ("≥ 5000", "≤ 1 ms") if title == "SQLite" else ("-", "-")
    hundredth = statistics.quantiles(hits, n=100)[-1]
    return [
        _row(f"{title}: records written a second, committed in batches", median(rates), rate),
        _row(f"{title}: winner of a kernel, hit", median(hits), answer),
        _row(f"{title}: the same, 99 of 100 below", hundredth, "-"),
        _row(f"{title}: winner of a kernel, near hit", median(near), "-"),
        _row(f"{title}: a kernel that is not there", median(misses), answer),
    ]


def _row(name: str, value: float, goal: str) -> str:
    shown = f"{value:.0f}" if value > 1 else f"{value * 1e3:.2f} ms"
    missed = value < _RATE if value > 1 else value > _LOOKUP
    return f"| {name} | {shown}{' **missed**' if missed and goal != '-' else ''} | {goal} |"


def _batches() -> Iterator[list[Record]]:
    """Records that no log has yet; those of a run are of its own moment."""
    records = list(_records(_WRITTEN, seed=time.time_ns() % 2**31))
    for at in range(0, _WRITTEN, _BATCH):
        yield records[at : at + _BATCH]


def _kernels() -> Iterator[Described]:
    for number in range(_KERNELS):
        yield Described.of("workload", ["kernel", 1, [], ["benchmark", number]])


_KEYS = [kernel.key for kernel in _kernels()]


def _records(count: int, seed: int = 0) -> Iterator[Record]:
    """Points of kernels in random order, with nine samples of a per cent of noise each."""
    draw = random.Random(seed)
    for number in range(count):
        usual = 1e-3 * (1 + draw.expovariate(2))
        yield Record(
            workload=draw.choice(_KEYS),
            target=_TARGET.key,
            toolchain=_TOOLS.key,
            rule="dense",
            point={"rows": draw.randrange(64), "vectors": draw.randrange(8), "chunk": number % 97},
            verdict=Verdict.OK,
            seconds=tuple(usual * draw.gauss(1, 0.01) for _ in range(9)),
            when=1.7e9 + number,
            who="benchmark",
            seed=seed,
        )


def _rate(log: TuningLog, records: list[Record]) -> float:
    start = time.perf_counter()
    added = log.add(records)
    assert added.new == len(records), added
    return len(records) / (time.perf_counter() - start)


def _lookups(log: TuningLog, target: Described, key: Callable[[random.Random], str]) -> list[float]:
    """Seconds of each of many look-ups, after a few to warm up."""
    draw, seconds = random.Random(2), list[float]()
    for _ in range(_LOOKUPS):
        workload = key(draw)
        start = time.perf_counter()
        log.lookup(workload, target, _TOOLS)
        seconds.append(time.perf_counter() - start)
    return seconds[_LOOKUPS // 10 :]


if __name__ == "__main__":
    command_line.run(main)
