"""Plain-text tables for terminals, logs and reports."""

from collections.abc import Sequence


def table(headers: Sequence[str], rows: Sequence[Sequence[str]], indent: str = "") -> str:
    """Align columns; one whose cells are all numbers (`4.2 ms`, `97 %`) stands to the right."""
    lines = [list(headers), *(list(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headers))]
    right = [bool(rows) and all(_is_number(row[c]) for row in rows) for c in range(len(headers))]
    return "\n".join(
        (indent + "  ".join(map(_pad, line, widths, right))).rstrip() for line in lines
    )


def _pad(cell: str, width: int, right: bool) -> str:
    return cell.rjust(width) if right else cell.ljust(width)


def _is_number(cell: str) -> bool:
    return cell == "-" or cell.lstrip("+-")[:1].isdigit() or cell[:1] == "."
