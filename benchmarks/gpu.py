"""Tests, kernels and models on this host's GPU: `python benchmarks/gpu.py` writes RESULTS-gpu.md.

First `pytest -m gpu`, then the rows of `gpu_rows.py` and `gpu_model_rows.py`, the most telling
first, each in a process of its own with a time limit: one that fails or hangs costs no other.  The
page is written anew after every row, so that whatever ends this keeps what is there.  Without a GPU
one line says so, and the page stays as it is.  Needs nothing but what hybridc needs; peers need
torch.  `--small FILE` tries all of it on the GPU at small sizes, `--dry-run FILE` on the CPU.
"""

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import gpu_model_rows
import gpu_rows
from gpu_rows import Machine, Row

from hybridc.compiler import fork, target
from hybridc.compiler.child import ChildError
from hybridc.compiler.errors import HybridcError, first_line
from hybridc.compiler.fork import Limits
from hybridc.compiler.tables import table

ROOT = Path(__file__).parent.parent
PAGE = Path(__file__).parent / "RESULTS-gpu.md"
_ROOMY = 2**62  # bytes: a GPU's driver maps more memory than any machine has
# The files with tests that need a GPU: others may need what such a machine lacks.
_TESTS = ("tests/test_gpu.py", "tests/test_backends.py")
_MOST_PROCESSES = 8  # of the tests: each has a context on the GPU
_LATE = 45  # seconds that a test which begins in time may take beyond it


@dataclass
class Page:
    """What is known by now, written after every change."""

    path: Path
    head: str
    tests: str = "not run"
    found: dict[tuple[str, str], Mapping[str, str]] = field(
        default_factory=dict[tuple[str, str], Mapping[str, str]]
    )

    def add(self, row: Row, cells: Mapping[str, str]) -> None:
        """Take in a row, and write."""
        self.found[row.table, row.name] = cells
        self.write()

    def write(self) -> None:
        """Write the whole page."""
        lines = ["# Results on a GPU", "", self.head, "", f"`pytest -m gpu`: {self.tests}"]
        for title in dict.fromkeys(title for title, _ in self.found):
            rows = {name: cells for (of, name), cells in self.found.items() if of == title}
            headers = list(dict.fromkeys(key for cells in rows.values() for key in cells))
            filled = [
                (name, *(cells.get(key, "-") for key in headers)) for name, cells in rows.items()
            ]
            lines += ["", f"## {title}", "", "```", table(("what", *headers), filled), "```"]
        self.path.write_text("\n".join([*lines, ""]))


def main() -> int:
    """Measure, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])  # pyright: ignore[reportOptionalMemberAccess]
    parser.add_argument("--minutes", type=float, default=8.0, help="to stop after")
    parser.add_argument("--no-tests", action="store_true", help="leave pytest -m gpu out")
    parser.add_argument("--only", default="", help="rows whose table or name holds this text")
    parser.add_argument("--small", type=Path, metavar="FILE", help="at small sizes, into FILE")
    parser.add_argument("--dry-run", type=Path, metavar="FILE", help="on this CPU, into FILE")
    options = parser.parse_args()
    end = time.monotonic() + 60 * options.minutes
    dry = options.dry_run is not None
    how = How(dry, dry or options.small is not None, end)
    machine = _asked(lambda: described(dry), 60)
    if "error" in machine:
        print(f"nothing is measured: {machine['error']}", file=sys.stderr)
        return 2
    page = Page(options.dry_run or options.small or PAGE, machine["head"])
    page.write()
    if not options.no_tests and not dry:
        page.tests = tested(min(120.0, end - time.monotonic()))
        page.write()
    with suppress(ImportError):
        import torch  # once, for all the processes of rows

        _ = torch
    for row in rows():
        if options.only in f"{row.table}: {row.name}":
            page.add(row, measured(row, how))
            print(f"{row.table}: {row.name}: {page.found[row.table, row.name]}", file=sys.stderr)
    print(page.path)
    return 0


@dataclass(frozen=True)
class How:
    """On this CPU instead of the GPU, at small sizes, until when by `time.monotonic`."""

    dry: bool
    small: bool
    end: float


def rows() -> list[Row]:
    """What is measured, in the order in which it is wanted most."""
    every = [*gpu_rows.products(), *gpu_rows.bound_by_memory(), *gpu_model_rows.models()]
    return sorted(every, key=lambda row: row.rank)


def described(dry: bool) -> dict[str, Any]:
    """The machine, in a sentence; or why nothing can be measured."""
    if dry:
        return {"head": "A dry run on a CPU: figures mean nothing."}
    from hybridc.compiler.cuda import driver, toolchain

    try:
        device, tools = driver.first(), toolchain.find().describe()
        return {
            "head": f"{device.gpu.name} ({device.gpu.arch}), driver for CUDA {driver.version()},"
            f" {tools}; default schedules, nothing tuned; medians by the device's events."
        }
    except HybridcError as error:
        return {"error": str(error)}


def measured(row: Row, how: How) -> Mapping[str, str]:
    """The row's cells, or why there are none."""
    left = how.end - time.monotonic()
    if left < 5:
        return {"result": "not run: no time was left"}

    def work() -> dict[str, Any]:
        try:
            here = target.parse("cpu" if how.dry else "cuda")
            return row.measure(Machine(here, how.dry, how.small))
        except Exception as error:  # whatever fails is this row's
            return {"result": f"failed: {type(error).__name__}: {first_line(error)[:120]}"}

    answer = _asked(work, min(row.limit, left))
    return {"result": answer["error"]} if "error" in answer else answer


def _asked(work: Any, seconds: float) -> dict[str, Any]:
    """What a fork answers; this process itself never touches the GPU, which forks would lack."""
    try:
        return fork.answer(work, Limits(seconds, _ROOMY))
    except ChildError as error:
        return {"error": "no answer in time" if error.timed_out else f"its process {error}"}


def tested(seconds: float) -> str:
    """What `pytest -m gpu` says; of one that takes longer, what it said until then."""
    until = str(time.time() + max(0.0, seconds - _LATE))
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-v", "-rfE", "--tb=line", *_TESTS]
    command += ["--until", until, "-p", "no:cacheprovider", "--continue-on-collection-errors"]
    if importlib.util.find_spec("xdist"):
        command += ["-n", str(min(_MOST_PROCESSES, os.cpu_count() or 1))]
    with tempfile.TemporaryFile("w+") as output:
        tests = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            tests.wait(seconds)
            ended = ""
        except subprocess.TimeoutExpired:
            ended = f"not done within {seconds:.0f} s: "
        with suppress(ProcessLookupError):
            os.killpg(tests.pid, signal.SIGKILL)
        tests.wait()
        output.seek(0)
        return ended + told_by_tests(output.read(), whole=not ended)


def told_by_tests(output: str, whole: bool) -> str:
    """The last line of pytest's output and what failed; of half an output what was counted."""
    lines = [line for line in output.splitlines() if line.strip()]
    verdicts = ("PASSED", "FAILED", "ERROR", "SKIPPED")
    counts = Counter(word for line in lines for word in verdicts if word in line.split()[:4])
    failed = dict.fromkeys(
        line.partition("FAILED ")[2].strip() for line in lines if "FAILED " in line
    )
    counted = ", ".join(f"{count} {word.lower()}" for word, count in counts.items())
    last = lines[-1].strip("= ") if lines and whole else counted or "nothing was tested"
    return "".join([last, *(f"\n* {each[:200]}" for each in list(failed)[:20])])


if __name__ == "__main__":
    sys.exit(main())
