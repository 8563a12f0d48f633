"""Tests, kernels and models on this host's GPU: `python benchmarks/gpu.py` writes RESULTS-gpu.md.

First `pytest -m gpu`, then the rows of `gpu_rows.py`, the most telling first, each in a process of
its own with a time limit: one that fails or hangs costs no other.  The page is written anew after
every row, so that whatever ends this keeps what is there.  Without a GPU one line says so, and the
page stays as it is; `--dry-run FILE` goes through all of it on the CPU, at small sizes.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

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
    parser.add_argument("--minutes", type=float, default=9.0, help="to stop after")
    parser.add_argument("--no-tests", action="store_true", help="leave pytest -m gpu out")
    parser.add_argument("--only", default="", help="rows whose table or name holds this text")
    parser.add_argument("--dry-run", type=Path, metavar="FILE", help="on this CPU, into FILE")
    given = parser.parse_args()
    end = time.monotonic() + 60 * given.minutes
    dry = given.dry_run is not None
    told = _asked(lambda: described(dry), 60)
    if "error" in told:
        print(f"nothing is measured: {told['error']}", file=sys.stderr)
        return 2
    page = Page(given.dry_run or PAGE, told["head"])
    if not given.no_tests and not dry:
        page.tests = tested(min(180.0, end - time.monotonic()))
    page.write()
    for row in rows():
        if given.only in f"{row.table}: {row.name}":
            page.add(row, measured(row, dry, end))
            print(f"{row.table}: {row.name}", file=sys.stderr)
    print(page.path)
    return 0


def rows() -> Iterator[Row]:
    """What is measured, in the order in which it is wanted most."""
    products = list(gpu_rows.products())
    models = list(gpu_rows.models())
    small = [row for row in models if "batch 1" in row.name]
    yield from products[:6]
    yield from gpu_rows.bound_by_memory()
    yield from small
    yield from products[6:]
    yield from (row for row in models if row not in small)


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


def measured(row: Row, dry: bool, end: float) -> Mapping[str, str]:
    """The row's cells, or why there are none."""
    left = end - time.monotonic()
    if left < 5:
        return {"result": "not run: no time was left"}

    def work() -> dict[str, Any]:
        try:
            here = target.parse("cpu" if dry else "cuda")
            return row.measure(Machine(here, dry))
        except Exception as error:  # whatever fails is this row's
            return {"result": f"failed: {type(error).__name__}: {first_line(error)[:120]}"}

    told = _asked(work, min(row.limit, left))
    return {"result": told["error"]} if "error" in told else told


def _asked(work: Any, seconds: float) -> dict[str, Any]:
    """What a fork answers; this process itself never touches the GPU, which forks would lack."""
    try:
        return fork.answer(work, Limits(seconds, _ROOMY))
    except ChildError as error:
        return {"error": "no answer in time" if error.timed_out else f"its process {error}"}


def tested(seconds: float) -> str:
    """The last line of `pytest -m gpu`, within so many seconds."""
    command: Sequence[str] = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "tests"]
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )
    except subprocess.TimeoutExpired:
        return f"not done within {seconds:.0f} s"
    lines = done.stdout.strip().splitlines() or done.stderr.strip().splitlines() or ["no output"]
    failed = [line.split(" ")[1] for line in lines if line.startswith("FAILED ")]
    return "; ".join([lines[-1], *failed[:20]])


if __name__ == "__main__":
    sys.exit(main())
