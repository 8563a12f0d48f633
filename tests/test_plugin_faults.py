"""What a plug-in of somebody else's does wrong while it runs is told in one line that names it."""

from pathlib import Path

import pytest
from made_up import all_better, go
from test_simulate import made

from hybridc.compiler.errors import InputError, PluginError
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.plugin_faults import blaming
from hybridc.compiler.tuning import strategies
from hybridc.compiler.tuning.simulation import simulate

SEARCH = """
from dataclasses import dataclass
from hybridc.compiler.interfaces import Strategy


@dataclass(frozen=True)
class Mine(Strategy):
    def candidates(self, task, history, draw):
        BODY
"""
CONTROL = """
from dataclasses import dataclass
from hybridc.compiler.orchestration.controller import Controller


@dataclass(frozen=True)
class Mine(Controller):
    def run(self, course):
        BODY
"""


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return None", "mine failed: TypeError: 'NoneType' object is not iterable"),
        ("raise ValueError('too few trials')", "mine failed: ValueError: too few trials"),
        ("yield 7", "mine failed: AttributeError"),
        ("yield {'rows': 1}", "mine failed: ValueError: {'rows': 1} is no point of the space"),
        ("yield {**task.default, 'rows': 1000}", "1000, .* is no point of the space"),
    ],
)
def test_a_search_strategy(tmp_path: Path, body: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(SEARCH.replace("BODY", body))
    strategy = strategies.catalogue([path]).create("mine")
    with pytest.raises(PluginError, match=message):
        simulate.replay(made(), strategy, 8)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("pass", "mine tried no stage: the first must be tried in any case"),
        ("course.go(1)", "mine failed: AttributeError"),
        ("raise ValueError('no idea')", "mine failed: ValueError: no idea"),
    ],
)
def test_a_control_strategy(tmp_path: Path, body: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(CONTROL.replace("BODY", body))
    with pytest.raises(PluginError, match=message):
        go(Steering("mine"), all_better(), plugins=(path,))


def test_what_we_raise_stays_ours() -> None:
    with pytest.raises(ZeroDivisionError), blaming(strategies.catalogue().create("random")):
        raise ZeroDivisionError
    with pytest.raises(InputError, match=r"^as it was$"), blaming(object()):
        raise InputError("as it was")
