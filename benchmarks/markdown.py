"""Tables as RESULTS.md has them."""

from collections.abc import Iterable, Sequence


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that hold no bar."""
    lines = [headers, ["---"] * len(headers), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def judged(figure: str, kept: bool) -> str:
    """A figure, marked where it falls short of its goal."""
    return figure if kept else f"{figure} **missed**"
