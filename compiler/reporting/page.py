"""Build one self-contained HTML page: no scripts, nothing from the network, light and dark.

Everything is made of elements, so that whatever a model is named stands there as text.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any
from xml.etree import ElementTree

Element = ElementTree.Element
Child = Element | str | None

# Characters that no HTML document may hold, whatever they are escaped to.
_FORBIDDEN = re.compile(
    r"[^\t\n\r\x20-\x7e\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd]"
)
# Nothing may be loaded and nothing may run, even if somebody finds a way to write it here.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"

STYLE = """
:root {
  color-scheme: light dark;
  --page: #fbfbf9; --card: #ffffff; --ink: #1a1a19; --soft: #5d5c57; --line: #e3e2dc;
  --bar: #2a78d6; --rest: #c4dbf5; --good: #0b7a38; --bad: #c22f2f;
  --c0: #2a78d6; --c1: #1b9e77; --c2: #d98c00; --c3: #8a5cc7; --c4: #c2507a; --c5: #3f97ad;
  --c6: #8b8a83; --gain: #7cc79a; --loss: #eba3a3;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #161615; --card: #1f1f1d; --ink: #f0efe9; --soft: #a8a69d; --line: #383733;
    --bar: #5b9ee8; --rest: #2b4360; --good: #4cc27a; --bad: #ff7b72;
    --c0: #5b9ee8; --c1: #3fbf95; --c2: #e3a938; --c3: #af8be6; --c4: #e07ba0; --c5: #5cb8ce;
    --c6: #a3a29b; --gain: #2f7d4f; --loss: #8f3f3f;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0 auto; max-width: 62rem; padding: 1.5rem 1rem 4rem; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; overflow-wrap: anywhere;
}
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 .25rem; }
h2 { font-size: 1.05rem; margin: 0 0 .5rem; }
p { margin: .25rem 0; }
code, .mono { font: .86em/1.45 ui-monospace, monospace; }
.soft { color: var(--soft); font-size: .88rem; }
.good { color: var(--good); } .bad { color: var(--bad); }
section {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  margin-top: 1rem; padding: 1rem;
}
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem;
  margin-top: 1rem; }
.tiles div { border: 1px solid var(--line); border-radius: 8px; padding: .6rem .75rem;
  background: var(--card); }
.tiles b { display: block; font-size: 1.25rem; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; overflow-wrap: break-word; }
th { text-align: left; font-weight: 600; color: var(--soft); font-size: .85rem; }
th, td { padding: .25rem .9rem .25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; }
ol.bars { list-style: none; margin: 0; padding: 0; }
ol.bars > li { border-bottom: 1px solid var(--line); padding: .3rem 0; }
ol.bars > li:last-child { border-bottom: 0; }
.row { display: grid; grid-template-columns: minmax(0, 19rem) minmax(0, 1fr) 5.5rem 4.5rem;
  column-gap: .75rem; align-items: center; }
.row .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.head { color: var(--soft); font-size: .85rem; border-bottom: 1px solid var(--line);
  padding-bottom: .25rem; }
summary { cursor: pointer; list-style: none; }
summary::-webkit-details-marker { display: none; }
summary .name { padding-left: 1em; position: relative; }
summary .name::before { content: "\\25B8"; color: var(--soft); left: 0; position: absolute; }
details[open] summary .name::before { content: "\\25BE"; }
summary:focus-visible { outline: 2px solid var(--bar); outline-offset: 2px; }
details > div { font-size: .9rem; padding: .25rem 0 .5rem 1em; }
svg { display: block; width: 100%; height: 14px; border-radius: 3px; }
.stack svg { height: 22px; }
.bar { fill: var(--bar); } .rest { fill: var(--rest); }
.gain { fill: var(--gain); } .loss { fill: var(--loss); } .limit { fill: var(--bad); }
line.limit { stroke: var(--bad); stroke-width: 2px; vector-effect: non-scaling-stroke; }
.f0 { fill: var(--c0); } .f1 { fill: var(--c1); } .f2 { fill: var(--c2); } .f3 { fill: var(--c3); }
.f4 { fill: var(--c4); } .f5 { fill: var(--c5); } .f6 { fill: var(--c6); }
.line { fill: none; stroke-width: 1.5px; vector-effect: non-scaling-stroke; }
.l0 { stroke: var(--c0); } .l1 { stroke: var(--c1); } .l2 { stroke: var(--c2); }
.l3 { stroke: var(--c3); } .l4 { stroke: var(--c4); } .l5 { stroke: var(--c5); }
.l6 { stroke: var(--c6); }
.grid { stroke: var(--line); stroke-width: 1px; vector-effect: non-scaling-stroke; }
.plot { margin: .75rem 0 1rem; }
.plot figcaption { font-size: .88rem; margin-bottom: .35rem; }
.axes { display: grid; grid-template-columns: 5rem minmax(0, 1fr); column-gap: .5rem;
  row-gap: 3px; color: var(--soft); font-size: .8rem; line-height: 1; }
.axes svg { height: 7rem; border-radius: 0; overflow: visible; }
.axes .strip { height: 7px; overflow: hidden; }
.axes .y { display: flex; flex-direction: column; justify-content: space-between;
  text-align: right; }
.axes .x { display: flex; justify-content: space-between; padding-top: 2px; }
.stages .row { grid-template-columns: minmax(0, 12rem) minmax(0, 1fr) 5.5rem 6rem; }
.stages { margin-top: .75rem; }
.stages .head { border-bottom: 0; padding-bottom: 0; }
.title { grid-column: 1 / -1; color: var(--ink); }
.key { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .5rem 0 0; padding: 0;
  list-style: none; font-size: .88rem; }
.key svg { display: inline-block; width: 12px; height: 12px; vertical-align: -1px;
  margin-right: .4em; }
@media (max-width: 40rem) {
  .row { grid-template-columns: minmax(0, 1fr) 5rem 4.2rem; row-gap: .2rem; }
  .stages .row { grid-template-columns: minmax(0, 1fr) 5rem 5.8rem; }
  .axes { grid-template-columns: 4rem minmax(0, 1fr); }
  .row .name { grid-column: 1 / -1; }
  .head .name { display: none; }
  .row svg { height: 12px; }
}
@media print { details > div { display: block; } section { break-inside: avoid; } }
"""


def element(tag: str, *children: Child, **attributes: str) -> Element:
    """Make an element; `class_` is the attribute class, and children of None are left out."""
    made = Element(tag, {name.rstrip("_"): clean(value) for name, value in attributes.items()})
    for child in children:
        if isinstance(child, Element):
            made.append(child)
        elif child is not None:
            _append_text(made, clean(child))
    return made


def clean(text: str) -> str:
    """The text without characters that no document may hold."""
    return _FORBIDDEN.sub("\ufffd", text)


def _append_text(parent: Element, text: str) -> None:
    if len(parent):
        parent[-1].tail = (parent[-1].tail or "") + text
    else:
        parent.text = (parent.text or "") + text


def section(title: str, *children: Child) -> Element:
    """A part of the page under its title."""
    return element("section", element("h2", title), *children)


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]]) -> Element:
    """A table that scrolls by itself where the window is narrow."""
    head = element("tr", *(element("th", name) for name in headers))
    body = [element("tr", *(element("td", str(cell)) for cell in row)) for row in rows]
    return element(
        "div",
        element("table", element("thead", head), element("tbody", *body)),
        class_="scroll",
    )


def bar(label: str, *parts: tuple[str, float]) -> Element:
    """A bar of parts, each a class and a width between 0 and 1, side by side from the left."""
    drawing = element(
        "svg", viewBox="0 0 1000 10", preserveAspectRatio="none", role="img", class_="chart"
    )
    drawing.set("aria-label", clean(label))
    start = 0.0
    for kind, share in parts:
        width = 1000 * min(max(share, 0.0), 1.0)
        place = {"x": f"{start:.1f}", "y": "0", "width": f"{width:.1f}", "height": "10"}
        drawing.append(element("rect", class_=kind, **place))
        start += width
    return drawing


def swatch(kind: str) -> Element:
    """A small square in the colour of a class, for keys."""
    drawing = element("svg", viewBox="0 0 10 10", preserveAspectRatio="none")
    drawing.set("aria-hidden", "true")
    drawing.append(element("rect", class_=kind, width="10", height="10"))
    return drawing


def document(title: str, *children: Child) -> str:
    """The whole page as text."""
    policy = element("meta", content=_POLICY)
    policy.set("http-equiv", "Content-Security-Policy")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        policy,
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", STYLE),
    )
    page = element("html", head, element("body", element("main", *children)), lang="en")
    return f"<!doctype html>\n{ElementTree.tostring(page, encoding='unicode', method='html')}\n"
