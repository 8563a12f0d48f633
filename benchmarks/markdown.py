"""Tables as RESULTS.md has them."""

from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that hold no bar."""
    return "\n".join([head(headers), *map(row, rows)])


def head(headers: Sequence[str]) -> str:
    """The two lines above a table's rows."""
    return f"{row(headers)}\n{row(['---'] * len(headers))}"


def row(cells: Sequence[str]) -> str:
    """One line of a table."""
    return f"| {' | '.join(cells)} |"


def show(lines: Iterable[str]) -> None:
    """Print lines, each as soon as it is there."""
    for line in lines:
        print(line, flush=True)


def judged(figure: str, kept: bool) -> str:
    """A figure, marked where it falls short of its goal."""
    return figure if kept else f"{figure} **missed**"
