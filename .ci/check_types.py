"""Run mypy and pyright, and make sure that they saw every file.

A checker that finds nothing to check also prints 0 errors, so the number of files that each of them
analysed is compared with the number of files on disk.
"""

import json
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
PACKAGED = ("compiler", "passes", "schedules", "autotune", "cli")
BESIDE = ("tests", "benchmarks", "examples")


def main() -> int:
    """Check with both; give 1 when either finds an error or has missed files."""
    packaged = 1 + _files(PACKAGED)  # one is hybridc/__init__.py
    with ThreadPoolExecutor() as both:  # each checks on one core
        mypy = both.submit(_mypy, packaged)
        pyright = both.submit(_pyright, packaged + _files(BESIDE))
    return 0 if mypy.result() and pyright.result() else 1


def _files(folders: tuple[str, ...]) -> int:
    return sum(1 for folder in folders for _ in (ROOT / folder).rglob("*.py"))


def _mypy(expected: int) -> bool:
    done = _run("mypy")
    print(done.stdout, end="", flush=True)
    found = re.search(r"(\d+) source files?", done.stdout)
    return _complete("mypy", int(found[1]) if found else 0, expected) and done.returncode == 0


def _pyright(expected: int) -> bool:
    done = _run("pyright", "--outputjson")
    if not done.stdout.startswith("{"):
        print(done.stdout)
        return False
    result: dict[str, Any] = json.loads(done.stdout)
    for fault in result["generalDiagnostics"]:
        print(_describe(fault))
    summary = result["summary"]
    print(f"pyright: {summary['errorCount']} errors in {summary['filesAnalyzed']} source files")
    return _complete("pyright", summary["filesAnalyzed"], expected) and done.returncode == 0


def _run(checker: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", checker, *arguments]
    return subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)


def _describe(fault: dict[str, Any]) -> str:
    path = Path(fault["file"])
    name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
    line = fault["range"]["start"]["line"] + 1
    return f"{name}:{line}: {fault['severity']}: {fault['message']} [{fault.get('rule', '-')}]"


def _complete(checker: str, seen: int, expected: int) -> bool:
    if seen < expected:
        print(f"{checker} saw {seen} files, but there are {expected}: its settings miss some")
    return seen >= expected


if __name__ == "__main__":
    sys.exit(main())
