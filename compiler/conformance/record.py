"""Results in a file, a line each as soon as they are there, for a run that may be interrupted.

The first line says whose results they are and which packages gave them; each other line is one.
"""

import json
from pathlib import Path
from typing import Any

from hybridc.compiler.conformance.suite import Result, Verdict
from hybridc.compiler.conformance.summary import versions
from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem import files

_GOOD = (Verdict.PASS, Verdict.FALLBACK)


class Record:
    """What is known of a suite's cases, by name; without a path in memory alone.

    With `again`, what did not pass is forgotten.  Raises InputError for a file that is none of this
    suite and these packages, or that cannot be written.
    """

    def __init__(self, path: Path | None, suite: str, again: bool = False) -> None:
        self.suite, self._path = suite, path
        self._head = {"suite": suite, "versions": versions()}
        self.results: dict[str, Result] = {}
        if path is None:
            return
        for result in self._read(path) if path.exists() else []:
            self.results[result.name] = result
        if again:
            self.results = {n: r for n, r in self.results.items() if r.verdict in _GOOD}
        kept = [self._head, *(result.to_json() for result in self.results.values())]
        try:
            with files.replacing(path) as stream:
                stream.writelines(map(_line, kept))
        except OSError as error:
            raise InputError(f"{path}: cannot be written: {files.reason(error)}") from None

    def add(self, result: Result) -> None:
        """Keep one more result."""
        self.results[result.name] = result
        if self._path is not None:
            with self._path.open("ab") as stream:
                stream.write(_line(result.to_json()))

    def _read(self, path: Path) -> list[Result]:
        """The results of a file; its last line may be torn."""
        try:
            *whole, _ = path.read_bytes().split(b"\n")
        except OSError as error:
            raise InputError(f"{path}: cannot be read: {files.reason(error)}") from None
        try:
            head, *rest = map(json.loads, whole or [_line(self._head)])
            self._check(path, head)
            return list(map(Result.from_json, rest))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: not results of a conformance run: {error!r}") from None

    def _check(self, path: Path, head: Any) -> None:
        """Raise InputError for results of another suite or of other packages."""
        mine, theirs = self._head, dict(head)
        if theirs["suite"] != mine["suite"]:
            raise InputError(f"{path}: results of {theirs['suite']}, not of {mine['suite']}")
        now: dict[str, Any] = versions()
        other = [f"{k} {v}, not {now.get(k)}" for k, v in theirs["versions"].items() if v != now[k]]
        if other:
            raise InputError(f"{path}: results by {'; '.join(other)}: give another file")


def _line(data: Any) -> bytes:
    return json.dumps(data).encode() + b"\n"
