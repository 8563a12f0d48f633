"""Code that is run by a Python of its own, and processes that shall end."""

import subprocess
import sys
import time
from pathlib import Path

# Seconds for what takes a few: a machine may be busy, or stand still for a while.
PATIENCE = 300


def run_child(
    code: str, *arguments: object, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run some code to its end; `prefix` is a command that runs Python."""
    command = [*prefix, sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)


def ended(number: int) -> bool:
    """Whether a process is gone, soon at least."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return True
        if state == "Z":  # nobody has waited for it yet
            return True
        time.sleep(0.01)
    return False
