"""A page as plain text: all that stands in it, without its drawings."""

from collections.abc import Iterator, Sequence

from hybridc.compiler.reporting.page import Child, Element
from hybridc.compiler.text.tables import table

_TITLES = ("h1", "h2")
_DRAWN = ("svg", "ul")  # drawings, and the keys to their colours
_NOTE = ("div", "soft")


def text(children: Sequence[Child]) -> str:
    """The elements one below the other, with an empty line before each section."""
    found = [line for child in children if isinstance(child, Element) for line in _lines(child)]
    return "\n".join(found).strip("\n") + "\n"


def _lines(part: Element) -> Iterator[str]:
    if part.tag in _DRAWN:
        return
    if part.tag in _TITLES:
        yield from ("", _words(part), "-" * len(_words(part)))
    elif part.tag in ("p", "li"):
        yield _words(part)
    elif part.tag == "table":
        yield from _table([[_words(cell) for cell in row] for row in part.iter("tr")])
    elif _has(part, "tiles"):
        yield from ("", *_tiles(part))
    elif _has(part, "bars") or any(_has(child, "head") for child in part):
        yield from _chart(part)
    else:
        for child in part:
            yield from _lines(child)


def _tiles(part: Element) -> list[str]:
    """A line for each tile: the rows of a table, without its headers."""
    tiles = [[_words(each) for each in tile] for tile in part]
    return _table([["", ""], *tiles])[1:]


def _chart(part: Element) -> Iterator[str]:
    """The rows of a chart as those of a table, and below each what else is told of it."""
    rows = [[_words(cell) for cell in row] for row in _rows(part)]
    widest = max(map(len, rows), default=0)
    aligned = iter(_table([cells for cells in rows if len(cells) == widest]))
    notes = {id(row): _notes(item) for item in part.iter("li") for row in _rows(item)}
    for row, cells in zip(_rows(part), rows, strict=True):
        yield next(aligned) if len(cells) == widest else " ".join(cells)
        yield from (f"    {note}" for note in notes.get(id(row), ()))


def _rows(part: Element) -> list[Element]:
    return [each for each in part.iter() if _has(each, "row")]


def _notes(item: Element) -> list[str]:
    """What stands below the row of an item."""
    found = [each for each in item.iter() if each.tag == "p" or (each.tag, *_kinds(each)) == _NOTE]
    return [_words(each) for each in found]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table; the first row are its headers."""
    return table(rows[0], rows[1:]).split("\n") if rows else []


def _words(part: Element) -> str:
    return " ".join("".join(part.itertext()).split())


def _has(part: Element, kind: str) -> bool:
    return kind in _kinds(part)


def _kinds(part: Element) -> list[str]:
    return (part.get("class") or "").split()
