"""Benchmarks that are interrupted: rows that were measured stand, and nothing is left running."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from child_runs import PATIENCE, ended

FOLDER = Path(__file__).parent.parent / "benchmarks"
OLD = "## Old\n\nof then\n\n| model | ms |\n| --- | --- |\n| digits | 1 |\n| sentences | 2 |\n"
# Prints one row, starts a process, and sends the one that started it a signal.
_SCRIPT = """\"\"\"Made up.\"\"\"
import os, pathlib, subprocess, time
here = pathlib.Path(__file__).parent
print("| model | ms |")
print("| --- | --- |")
print("| digits | 3 |")
print("* digits: new.")
print("| late | 4 |")
other = subprocess.Popen(["sleep", "1000"])
(here / "pids").write_text(f"{os.getpid()} {other.pid}")
for _ in range(30000):
    if "| late |" in (here / "RESULTS.md").read_text():
        break
    time.sleep(0.01)
SIGNAL
"""
# A shell that starts the tests in the background lets them ignore SIGINT.
_MAIN = """import pathlib, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, sys.argv[1])
import results, run
run.HERE = pathlib.Path(sys.argv[2])
results.FILE = run.HERE / "RESULTS.md"
sys.argv = ["run.py", "precision"]
run.main()
"""


def measured(folder: Path, then: str) -> subprocess.CompletedProcess[str]:
    """Run a script that prints two rows and does something `then`, over results of before."""
    (folder / "precision.py").write_text(_SCRIPT.replace("SIGNAL", then))
    seeding = f"import sys; sys.path.insert(0, {str(FOLDER)!r}); import results; import pathlib\n"
    seeding += f"results.FILE = pathlib.Path({str(folder / 'RESULTS.md')!r})\n"
    seeding += "read = results.Results.read()\n"
    seeding += f"read.write(results.machine(), 'precision', {OLD!r}, ['precision'])"
    subprocess.run([sys.executable, "-c", seeding], check=True)
    call = [sys.executable, "-c", _MAIN, str(FOLDER), str(folder)]
    return subprocess.run(call, check=False, capture_output=True, text=True, timeout=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_benchmark_keeps_its_rows_and_leaves_nothing_running(
    tmp_path: Path, number: signal.Signals
) -> None:
    done = measured(tmp_path, f"os.kill(os.getppid(), {int(number)}); time.sleep(1000)")
    assert done.returncode == 128 + number, done.stderr
    text = (tmp_path / "RESULTS.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")][2:]
    assert rows == ["| digits | 3 |", "| sentences | 2 |", "| late | 4 |"]
    assert "* digits: new." in text
    assert "which has not ended" in text
    assert all(ended(int(each)) for each in (tmp_path / "pids").read_text().split())


def test_a_benchmark_that_ends_replaces_what_was_there(tmp_path: Path) -> None:
    done = measured(tmp_path, "other.kill()")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| late | 4 |" in text
    assert "sentences" not in text
    assert "has not ended" not in text


def test_a_benchmark_that_fails_keeps_its_rows_and_the_others(tmp_path: Path) -> None:
    done = measured(tmp_path, "raise SystemExit(7)")
    assert done.returncode != 0
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| late | 4 |" in text
    assert "| sentences | 2 |" in text
    assert all(ended(int(each)) for each in (tmp_path / "pids").read_text().split())
