"""Whatever text is given as an option, the answer is a value or an error for people."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridc.compiler import frontend, pipeline, plugin, target
from hybridc.compiler.assurance import contract, limits
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.interfaces import Pass
from hybridc.compiler.measurement.peer import peers
from hybridc.compiler.monitoring import monitor
from hybridc.compiler.plugin import Catalogue
from hybridc.compiler.text import units

# Text near the grammars of the options, and text that is nothing of the kind.
PIECES = st.sampled_from(
    ["fuse", "layout", "default", "cosine", "x", "{", "}", "=", ",", " ", "-", "1", "0.5", "ms"]
)
TEXT = st.lists(PIECES, max_size=12).map("".join) | st.text(max_size=30)

PARSERS: list[Callable[[str], Any]] = [
    pipeline.parse,
    pipeline.passes().create,
    peers().create,
    frontend.parse_shape,
    units.parse_duration,
    units.parse_size,
    monitor.interval,
    lambda text: limits.parse_limits([text]),
    lambda text: contract.Contract(max_latency=text),
]


@pytest.mark.parametrize("parse", PARSERS)
@settings(deadline=None)  # the first call imports TVM
@given(text=TEXT)
def test_no_option_text_raises_anything_but_our_errors(
    parse: Callable[[str], Any], text: str
) -> None:
    with contextlib.suppress(HybridcError):
        parse(text)


@settings(deadline=None)
@given(text=TEXT | st.dictionaries(st.sampled_from(["kind", "mcpu", "num-cores"]), TEXT).map(str))
def test_no_target_text_raises_anything_but_our_errors(text: str) -> None:
    with contextlib.suppress(HybridcError):
        target.parse(text)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue[Pass]:
    path = tmp_path_factory.mktemp("plugins") / "turn_about.py"
    path.write_text(
        "from dataclasses import dataclass\n"
        "from hybridc.compiler.interfaces import Context, IRModule, Pass\n"
        "@dataclass(frozen=True)\n"
        "class TurnAbout(Pass):\n"
        '    """Has an option of each type."""\n'
        "    depth: int = 4\n"
        "    scale: float = 0.5\n"
        "    aggressive: bool = False\n"
        "    axis_name: str = 'rows'\n"
        "    def apply(self, module: IRModule, context: Context) -> IRModule:\n"
        "        return module\n"
    )
    return Catalogue("hybridc.passes", Pass, (path,))


@settings(deadline=None)
@given(
    depth=st.integers(),
    scale=st.floats(allow_nan=False),
    aggressive=st.booleans(),
    axis_name=st.from_regex(r"[a-z0-9_.:+-]+", fullmatch=True),
)
def test_a_pass_and_its_text_are_inverses(catalogue: Catalogue[Pass], **values: Any) -> None:
    made = catalogue.load("turn-about")(**values)
    text = plugin.text(made)
    (again,) = pipeline.parse(f" {text} ", catalogue)
    assert vars(again) == values
    assert plugin.text(again) == text
