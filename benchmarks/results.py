"""RESULTS.md: sections by machine and key, of which a benchmark replaces one and keeps the others.

A machine's part has a heading that describes it; what was measured elsewhere stays as it is.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.hardware import host

FILE = Path(__file__).parent / "RESULTS.md"
_HEAD = """# Results

Made by `make bench`; every number here was measured by the file that its section names, on the
day and the machine that stand there.  What falls short of its goal is marked **missed**.
"""
# `<!-- machine: AMD EPYC, AVX2, ... -->` before the sections of a machine, `<!-- kernels -->`
# before each of them.
_MACHINE = re.compile(r"^<!-- machine: (.*) -->\n", re.MULTILINE)
_SECTION = re.compile(r"^<!-- ([\w-]+) -->\n", re.MULTILINE)

Sections = dict[str, str]


@dataclass(frozen=True)
class Results:
    """The sections of each machine, by key, in the order in which they are written."""

    machines: dict[str, Sections]

    @classmethod
    def read(cls) -> "Results":
        """What the file holds now."""
        text = FILE.read_text() if FILE.exists() else ""
        parts = _MACHINE.split(text)[1:]
        return cls({name: _sections(body) for name, body in _pairs(parts)})

    def of(self, machine: str) -> Sections:
        """The sections of a machine; none where nothing was measured on it."""
        return self.machines.get(machine, {})

    def write(self, machine: str, key: str, text: str, order: list[str]) -> None:
        """Write the file with one section replaced; keys that `order` lacks come last."""
        every = {**self.of(machine), key: text}
        known = [name for name in order if name in every]
        known += [name for name in every if name not in order]  # by hand: causes of misses
        machines = {**self.machines, machine: {name: every[name] for name in known}}
        text = "\n".join([_HEAD, *(_written(*each) for each in machines.items())])
        with replacing(FILE) as stream:
            stream.write(text.encode())


def machine() -> str:
    """The machine that this runs on: the CPU, its vector instructions, its cores."""
    features = host.cpu_features()
    widest = "AVX-512" if "avx512f" in features else "AVX2" if "avx2" in features else "SSE"
    narrow = {"avx512vnni": "VNNI", "avx512bf16": "BF16"}
    extra = " and ".join(name for feature, name in narrow.items() if feature in features)
    vectors = f"{widest} with {extra}" if extra else widest
    return f"{host.cpu_model()}, {vectors}, {host.cores()} cores"


def _written(machine: str, found: Sections) -> str:
    body = "\n".join(f"<!-- {key} -->\n{text}" for key, text in found.items())
    return f"<!-- machine: {machine} -->\n# On {machine}\n\n{body}"


def _sections(text: str) -> Sections:
    return {key: body.strip() + "\n" for key, body in _pairs(_SECTION.split(text)[1:])}


def _pairs(parts: list[str]) -> list[tuple[str, str]]:
    return list(zip(parts[::2], parts[1::2], strict=True))


def merged(old: str, new: str) -> str:
    """The new table and notes, with the rows and notes of the old that the new ones lack.

    A table's first column names the row, and a note begins with `* ROW:`.  A table of other
    columns is replaced as a whole.
    """
    head, rows, notes = _parts(new)
    old_head, old_rows, old_notes = _parts(old)
    if _cells(old_head) == _cells(head):
        kept = [name for name in old_rows if name not in rows]
        notes = [note for note in old_notes if _noted(note) in kept] + notes
        rows = {**old_rows, **rows}
    lines = [*head, *rows.values()]
    return "\n".join([*lines, *(["", *notes] if notes else [])])


def is_row(lines: Sequence[str]) -> bool:
    """Whether the last of the lines is a row of the table, below its head."""
    return lines[-1].startswith("|") and sum(line.startswith("|") for line in lines) > 2


def _parts(text: str) -> tuple[list[str], dict[str, str], list[str]]:
    """The head of a table, its rows by name, and the notes."""
    table = [line for line in text.splitlines() if line.startswith("|")]
    rows = {line.split("|")[1].strip(): line for line in table[2:]}
    return table[:2], rows, [line for line in text.splitlines() if line.startswith("* ")]


def _cells(head: Sequence[str]) -> list[list[str]]:
    """What a table's head says, however wide its cells are written."""
    return [[cell.strip() for cell in line.split("|")] for line in head]


def _noted(note: str) -> str:
    return note.removeprefix("* ").split(":", 1)[0]
