"""Tests, kernels and models on this host's GPU: `python benchmarks/gpu.py` writes RESULTS-gpu.md.

First `pytest -m gpu`, while other processes compile what the rows need; then the rows of
`gpu_kernel_rows.py`, `gpu_library_rows.py`, `gpu_model_rows.py` and `gpu_tile_rows.py`, the most
telling first, each with a time limit and in a process that ends with the first that fails or hangs:
it costs no other.
The page is written anew after every row, so that whatever ends this keeps what is there, and a
later call on the same GPU by the same code adds to it.  Without a GPU one line says so, and the
page stays as it is.  Needs nothing but what hybridc needs; peers need torch.  `--small FILE` tries
all of it on the GPU at small sizes, `--dry-run FILE` on the CPU.
"""

import argparse
import hashlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import hybridc.compiler as before_tvm  # which would start the driver otherwise, for no fork to use

# isort: split
import command_line
import gpu_kernel_rows
import gpu_library_rows
import gpu_model_rows
import gpu_tile_rows
import gpu_together
from gpu_ahead import Ahead, asked
from gpu_page import Page
from gpu_rows import Machine, Row

from hybridc.compiler import target
from hybridc.compiler.errors import HybridcError

_ = before_tvm
ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).parent / "RESULTS-gpu.md"
_CODE = ("compiler", "passes", "schedules", "benchmarks")
# The files with tests that need a GPU: others may need what such a machine lacks.
_TESTS = ("tests/test_gpu.py", "tests/test_backends.py")
_MOST_PROCESSES = 12  # of the tests: each has a context on the GPU
_LATE = 20  # seconds that a test which begins in time may take beyond it
# Shares of the time: at most for the tests, and until when peers may fill their caches.
_TESTING, _WARMING = 0.4, 0.42


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--minutes", type=float, default=8.0, help="to stop after")
    parser.add_argument("--no-tests", action="store_true", help="leave pytest -m gpu out")
    parser.add_argument("--only", default="", help="rows whose table and name this pattern finds")
    parser.add_argument("--details", type=Path, metavar="DIR", help="for tests and profiles")
    parser.add_argument("--small", type=Path, metavar="FILE", help="at small sizes, into FILE")
    parser.add_argument("--dry-run", type=Path, metavar="FILE", help="on this CPU, into FILE")
    given = parser.parse_args()
    dry = given.dry_run is not None
    small = dry or given.small is not None
    how = How(dry, small, time.monotonic(), 60 * given.minutes, given.details)
    told = asked(lambda: described(dry), 60)
    if "error" in told:
        print(f"nothing is measured: {told['error']}", file=sys.stderr)
        return 2
    page = Page(given.dry_run or given.small or PAGE, told["head"], code())
    page.write()
    with suppress(ImportError):
        import torch  # once, for all the processes of rows

        _ = torch
    wanted = [row for row in rows() if re.search(given.only, f"{row.table}: {row.name}")]
    with tempfile.TemporaryDirectory(prefix="hybridc-gpu-") as folder:
        ahead = Ahead(wanted, how.machine, Path(folder))
        begin(ahead, how)
        if not given.no_tests and not dry:
            page.tests = tested(min(120.0, _TESTING * how.seconds), how.details)
            page.write()
        ahead.end(warms=True, until=how.at(_WARMING))
        for some in ahead.in_turn(how.end):
            for row, cells in measured(some, how, ahead):
                page.add(row, cells)
                print(f"{row.table}: {row.name}: {page.told(row)}", file=sys.stderr)
        ahead.end(warms=False)
    print(page.path)
    return 0


@dataclass(frozen=True)
class How:
    """On this CPU instead of the GPU, at small sizes, since when and for how long.

    `begun` is of `time.monotonic`; `details` is where to write what tests say and where models
    spend their time.
    """

    dry: bool
    small: bool
    begun: float
    seconds: float
    details: Path | None = None

    @property
    def end(self) -> float:
        """When the time is over."""
        return self.at(1.0)

    def at(self, share: float) -> float:
        """When so much of the time is over."""
        return self.begun + share * self.seconds

    def machine(self) -> Machine:
        """Where rows are measured; asks the driver."""
        here = target.parse("cpu" if self.dry else "cuda")
        return Machine(here, self.dry, self.small, self.details)


def rows() -> list[Row]:
    """What is measured, in the order in which it is wanted most."""
    made = [
        *gpu_kernel_rows.products(),
        *gpu_library_rows.products(),
        *gpu_kernel_rows.attentions(),
        *gpu_kernel_rows.bound_by_memory(),
        *gpu_model_rows.models(),
        *gpu_tile_rows.products(),
    ]
    return sorted(made, key=lambda row: row.rank)


def begin(ahead: Ahead, how: How) -> None:
    """Start what needs no measurement: a quarter of the cores compile, another one for peers."""
    count = max(1, (os.cpu_count() or 1) // 4)
    ahead.begin(count, warms=False)
    if not how.dry:
        ahead.begin(count, warms=True)


def code() -> str:
    """A hash of the code that is measured: rows of other code are no rows of a page."""
    made = hashlib.blake2b(digest_size=8)
    for path in sorted(path for name in _CODE for path in (ROOT / name).rglob("*.py")):
        made.update(path.read_bytes())
    return made.hexdigest()


def described(dry: bool) -> dict[str, Any]:
    """The machine, in a sentence; or why nothing can be measured."""
    if dry:
        return {"head": "A dry run on a CPU: figures mean nothing."}
    from hybridc.compiler.cuda import driver, toolchain

    try:
        device, tools = driver.first(), toolchain.find().describe()
        return {
            "head": f"{device.gpu.name} ({device.gpu.arch}), driver for CUDA {driver.version()},"
            f" {tools}; default schedules, nothing tuned; medians by the device's events, kernels"
            " in replayed graphs."
        }
    except HybridcError as error:
        return {"error": str(error)}


def measured(
    some: Sequence[Row], how: How, ahead: Ahead
) -> Iterator[tuple[Row, Mapping[str, str]]]:
    """The rows' cells, or why there are none."""
    prepared: list[Row] = []
    late = how.end - time.monotonic() <= 0
    for row in some:
        if why := gpu_together.NO_TIME if late else ahead.failure(row):
            yield row, {"result": why}
        else:
            prepared.append(row)
    yield from gpu_together.measured(prepared, how.machine, ahead.folder_of, how.end)


def tested(seconds: float, details: Path | None) -> str:
    """What `pytest -m gpu` says; of one that takes longer, what it said until then."""
    until = str(time.time() + max(0.0, seconds - _LATE))
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-rfE", "--tb=short", *_TESTS]
    command += ["--until", until, "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(min(_MOST_PROCESSES, os.cpu_count() or 1))]
    with tempfile.TemporaryFile("w+") as said:
        tests = subprocess.Popen(
            command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            tests.wait(seconds)
            ended = ""
        except subprocess.TimeoutExpired:
            ended = f"not done within {seconds:.0f} s: "
        with suppress(ProcessLookupError):
            os.killpg(tests.pid, signal.SIGKILL)
        tests.wait()
        said.seek(0)
        text = said.read()
    if details:
        details.mkdir(parents=True, exist_ok=True)
        (details / "tests.txt").write_text(text)
    return ended + told_by_tests(text, whole=not ended)


def told_by_tests(said: str, whole: bool) -> str:
    """The last line of pytest's output and what failed; of half an output what was counted."""
    lines = [line for line in said.splitlines() if line.strip()]
    verdicts = ("PASSED", "FAILED", "ERROR", "SKIPPED")
    counts = Counter(word for line in lines for word in verdicts if word in line.split()[:4])
    failed = dict.fromkeys(
        line.partition("FAILED ")[2].strip() for line in lines if "FAILED " in line
    )
    counted = ", ".join(f"{count} {word.lower()}" for word, count in counts.items())
    last = lines[-1].strip("= ") if lines and whole else counted or "nothing was tested"
    return "".join([last, *(f"\n* {each[:200]}" for each in list(failed)[:20])])


if __name__ == "__main__":
    command_line.run(main)
