"""A faulty pass and a faulty rule are found, and what is written shows the fault again."""

import json
import shlex
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx_models import FLOAT, build, node, noise

from hybridc.cli import main
from hybridc.compiler import frontend
from hybridc.compiler.assurance import calibration
from hybridc.compiler.debugging import complaints

PASS = '''
"""Turn sums into differences."""

from dataclasses import dataclass

from tvm import relax

from hybridc.compiler.interfaces import Pass
from hybridc.compiler.ir.rewrite import operator, rewrite


@dataclass(frozen=True)
class FlipAdds(Pass):
    """Turn sums into differences."""

    def apply(self, module, context):
        return rewrite(module, self._flip)

    def _flip(self, value, graph):
        return relax.op.subtract(*value.args) if operator(value) == "add" else None
'''
RULE = '''
"""Get the softmax wrong."""

from dataclasses import dataclass
from typing import ClassVar

import tvm

from hybridc.compiler.interfaces import Match, NotApplicable, ScheduleRule


@dataclass(frozen=True)
class StartAtOne(ScheduleRule):
    """Sum the exponentials of a softmax beginning at one."""

    priority: ClassVar[int] = 1000

    def match(self, func, target):
        return Match(func, target) if "exponentials" in str(func) else NotApplicable("no softmax")

    def knobs(self, match):
        return {"start": (0, 1)}

    def default(self, match, target):
        return {"start": 1}

    def schedule(self, match, point):
        text = match.func.script().replace("T.float32(0.0)", "T.float32(1.0)")
        return tvm.s_tir.Schedule(tvm.script.from_source(text))
'''


@pytest.fixture
def model(tmp_path: Path) -> Path:
    nodes = [
        node("MatMul", "x w", "m"),
        node("Add", "m b", "a"),
        node("Softmax", "a", "p", axis=-1),
        node("MatMul", "p w", "y"),
    ]
    proto = build(
        nodes, [("x", FLOAT, (8, 8))], [("y", FLOAT, (8, 8))], {"w": noise(8, 8), "b": noise(8)}
    )
    onnx.save(proto, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def written(folder: Path, name: str, text: str) -> Path:
    path = folder / f"{name}.py"
    path.write_text(text)
    return path


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main.run(list(words))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_faulty_pass(model: Path, tmp_path: Path, capsys: Any) -> None:
    plugin = written(tmp_path, "flip_adds", PASS)
    call = ["bisect", str(model), "--plugin", str(plugin), "--threads", "1"]
    call += ["--pipeline", "simplify-inference,fold-constants,flip-adds,legalize,fuse"]
    code, out, _ = run(capsys, *call, "--json")
    told = json.loads(out)
    assert (code, told["pass"], told["kernel"]) == (1, "flip-adds", None)
    assert "output 'y' differs from the reference" in told["complaint"]
    code, _, err = run(capsys, *shlex.split(told["reproduce"])[1:])
    assert code == 1
    assert "output 0 changed" in err


def test_a_faulty_kernel(model: Path, tmp_path: Path, capsys: Any) -> None:
    plugin = written(tmp_path, "start_at_one", RULE)
    code, out, _ = run(capsys, "bisect", str(model), "--plugin", str(plugin), "--threads", "1")
    assert code == 1
    lines = dict(line.split(": ", 1) for line in out.splitlines())
    assert "differs from the reference" in lines["pass schedule"]
    assert "softmax (rule start-at-one, start=1)" in lines["kernel"]
    text = Path(lines["IR before it"]).read_text()
    assert "def softmax(" in text
    assert "def dense(" not in text, "the kernel stands alone"
    code, _, err = run(capsys, *shlex.split(lines["reproduce"])[1:])
    assert code == 1
    assert "output 0 changed" in err


def test_nothing_is_wrong(model: Path, capsys: Any) -> None:
    code, out, _ = run(capsys, "bisect", str(model), "--threads", "1")
    assert (code, out) == (0, "the answer is right after every pass\n")
    assert not list(model.parent.glob("*.bisect.py"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{model}", "--pipeline", "fold-constant"], "did you mean 'fold-constants'"),
        (["missing.onnx"], "no such file"),
        (["{model}", "--slow", "--factor", "1"], "--factor"),
    ],
)
def test_bad_calls(model: Path, capsys: Any, words: list[str], message: str) -> None:
    code, _, err = run(capsys, "bisect", *[word.format(model=model) for word in words])
    assert code == 2
    assert message in err


def test_a_slow_pass(monkeypatch: pytest.MonkeyPatch, model: Path, capsys: Any) -> None:
    """Behind `fuse` calls take four times as long, says the clock of this test."""
    monkeypatch.setattr(complaints.Slow, "measure", lambda _, m: 4.0 if "fused" in str(m) else 1.0)
    call = ["bisect", str(model), "--threads", "1", "--slow", "--json"]
    code, out, _ = run(capsys, *call, "--pipeline", "fold-constants,legalize,fuse,schedule")
    told = json.loads(out)
    assert (code, told["pass"]) == (1, "fuse")
    assert told["complaint"] == "a call takes 4.00 times as long as before"
    assert shlex.split(told["reproduce"]) == [
        *["hybridc", "opt", "--pipeline", "fuse", told["ir"]],
    ]


def test_times_are_of_calls(model: Path) -> None:
    loaded = frontend.load(model)
    (feed,) = calibration.random_feeds(loaded.inputs, 0)
    slow = complaints.Slow(list(feed.values()), 1.5)
    assert 0 < slow.measure(loaded.module) < 10
    assert slow.against(loaded.module).usual > 0
