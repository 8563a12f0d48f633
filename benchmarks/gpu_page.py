"""The page of `gpu.py`, and beside it what it was made of, to which a later call adds."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gpu_rows import Row

from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.text.tables import table

# How the result of a row begins that says nothing: time was short, which it need not be next time.
_MISSED = ("not run", "not compiled in time", "no answer in time")


@dataclass
class Page:
    """What is known by now, written after every change.

    It begins with what the last page says of the same `head` and `code`.
    """

    path: Path
    head: str
    code: str
    tests: str = "not run"
    found: dict[tuple[str, str], Mapping[str, str]] = field(
        default_factory=dict[tuple[str, str], Mapping[str, str]]
    )

    def __post_init__(self) -> None:
        if not self._data.exists():
            return
        known = json.loads(self._data.read_text())
        if (known["head"], known["code"]) == (self.head, self.code):
            self.tests = known["tests"]
            self.found = {(title, name): cells for title, name, cells in known["rows"]}

    @property
    def _data(self) -> Path:
        return self.path.with_suffix(".json")

    def add(self, row: Row, cells: Mapping[str, str]) -> None:
        """Take in a row, and write; one that was not run leaves what is known."""
        key = row.table, row.name
        if key not in self.found or not cells.get("result", "").startswith(_MISSED):
            self.found[key] = cells
        self.write()

    def told(self, row: Row) -> str:
        """A row as one line."""
        return ", ".join(f"{name} {cell}" for name, cell in self.found[row.table, row.name].items())

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
        _write(self.path, "\n".join([*lines, ""]))
        told = [(title, name, cells) for (title, name), cells in self.found.items()]
        data = {"head": self.head, "code": self.code, "tests": self.tests, "rows": told}
        _write(self._data, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def _write(path: Path, text: str) -> None:
    with replacing(path) as stream:
        stream.write(text.encode())
