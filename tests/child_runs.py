"""Code that is run by a Python of its own."""

import subprocess
import sys


def run_child(
    code: str, *arguments: object, prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run some code to its end, a minute at most; `prefix` is a command that runs Python."""
    command = [*prefix, sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
