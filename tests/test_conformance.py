"""Other people's cases: how they are run, counted and told, and a fixed subset of ONNX's."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner

from hybridc.cli.conformance import command
from hybridc.compiler.conformance import run, summary
from hybridc.compiler.conformance.comparison import Tolerance, difference
from hybridc.compiler.conformance.examiner import judged
from hybridc.compiler.conformance.onnx_cases import Case, examine
from hybridc.compiler.conformance.page import Document, page
from hybridc.compiler.conformance.precise import nearer, outputs
from hybridc.compiler.conformance.suite import Entry, Result, Suite, Verdict, named, suites
from hybridc.compiler.conformance.suites.onnx_node import may_make
from hybridc.compiler.errors import InputError, ModelError, PluginError
from hybridc.compiler.processes.fork import Limits

EXACT = Tolerance(0.0, 0.0)
SUITE = '''"""Cases that go wrong in every way."""
import os, time
from dataclasses import dataclass
from hybridc.compiler.conformance.suites.onnx_node import may_make
from hybridc.compiler.conformance.suite import Entry, Result, Suite, Verdict
from hybridc.compiler.errors import ModelError

@dataclass(frozen=True)
class Faulty(Suite):
    """Faults."""
    packages = ()
    def entries(self, core):
        return [Entry(n, "group") for n in ("dies", "fine", "hangs", "raises", "refuses", "wrong")]
    def examine(self, name):
        if name == "dies": os.abort()
        if name == "hangs": time.sleep(600)
        if name == "raises": raise ValueError("oh")
        if name == "refuses": raise ModelError("no")
        verdict = Verdict.WRONG if name == "wrong" else Verdict.PASS
        return Result("", "", verdict, "far off" if name == "wrong" else "")
'''


# A verdict that is better than expected fails too.
@pytest.mark.parametrize("step", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_the_fixed_subset_is_as_it_was(step: int) -> None:
    text = Path(__file__).with_name("conformance_subset.txt").read_text()
    lines = [line.split() for line in text.splitlines() if not line.startswith("#")][::step]
    expected = {name: "".join(verdict) for name, *verdict in lines if verdict}
    with run.Runner("onnx-node", Limits(300.0), core=True) as runner:
        known = {entry.name: entry for entry in runner.entries()}
        found = runner.results([known[name] for name, *_ in lines], lambda _: None)
        failing = {r.name: (str(r.verdict), r.reason) for r in found if r.verdict != Verdict.PASS}
    assert {name: verdict for name, (verdict, _) in failing.items()} == expected, failing


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("", True),
        ("relu", True),
        ("relu_expanded", True),
        ("relu_expanded_ver18", True),
        ("expanded_ver18", True),
        ("pool", False),
    ],
)
def test_a_module_may_make_what_its_names_and_their_functions_hold(text: str, may: bool) -> None:
    source = 'def export():\n    expect(node, inputs=[x], outputs=[y], name="test_relu")\n'
    assert may_make(source, text) == may
    assert may_make(source + "    expect(node, name=name)", text)


@pytest.mark.slow
def test_no_module_of_onnx_makes_what_its_text_does_not_tell() -> None:
    """In a process of its own, since modules that another test imported make nothing again."""
    code = (
        "import hybridc.compiler.conformance.suites.onnx_node as suite\n"
        "import importlib, pathlib\n"
        "import onnx.backend.test.case.node as node\n"
        "for path in pathlib.Path(node.__path__[0]).rglob('[!_]*.py'):\n"
        "    before = len(node._NodeTestCases)\n"
        "    parts = path.relative_to(node.__path__[0]).with_suffix('').parts\n"
        "    importlib.import_module('.'.join((node.__name__, *parts)))\n"
        "    for case in node._NodeTestCases[before:]:\n"
        "        assert suite.may_make(path.read_text(), case.name), (path.name, case.name)\n"
        "assert len(node._NodeTestCases) > 1000\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=False, timeout=300)
    assert done.returncode == 0


def test_what_a_case_raises_is_its_verdict() -> None:
    def refuse() -> Result:
        raise ModelError("no such operator")

    def fail() -> Result:
        raise ZeroDivisionError("by nothing")

    assert judged("a", "g", refuse) == Result("a", "g", Verdict.UNSUPPORTED, "no such operator")
    assert judged("a", "g", fail).reason == "ZeroDivisionError: by nothing"
    right = judged("a", "g", lambda: Result("", "", Verdict.PASS))
    assert right == Result("a", "g", Verdict.PASS)


def test_a_case_that_dies_or_hangs_is_lost_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "faulty_suite.py").write_text(SUITE)
    info = tmp_path / "faulty-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: faulty\nVersion: 1\n")
    group = "hybridc.compiler.conformance.suites"
    (info / "entry_points.txt").write_text(f"[{group}]\nfaulty = faulty_suite:Faulty\n")
    path = f"{tmp_path}:{Path(__file__).parents[1]}"
    monkeypatch.setenv("PYTHONPATH", path)
    with run.Runner("faulty", Limits(5.0)) as runner:
        found = {r.name: r for r in runner.results(runner.entries(), lambda _: None)}
    assert {name: str(r.verdict) for name, r in found.items()} == {
        "dies": "error",
        "fine": "pass",
        "hangs": "error",
        "raises": "error",
        "refuses": "unsupported",
        "wrong": "wrong",
    }
    assert found["dies"].reason == "its process ended with -6"
    assert found["hangs"].reason == "no answer in 5 s"


def test_outputs_are_compared_as_onnx_does() -> None:
    x, near = np.array([1, 2], np.float32), Tolerance(1e-3, 1e-7)
    assert difference([x], [x], near) is None
    assert difference([x], [x, x], near) == "1 outputs, not 2"
    assert difference([x], [x[None]], near) == "output 0 has the shape (2,), not (1, 2)"
    said = difference([x], [x.astype(np.float64)], near)
    assert said == "output 0 is of float32, not float64"
    assert "Mismatched" in str(difference([x], [np.array([1, 3], np.float32)], near))
    assert difference([[x, x]], [[x, x]], near) is None
    said = difference([[x]], [[x, x]], near)
    assert said == "output 0, a sequence: 1 outputs, not 2"
    words = np.array(["a", "b"], object)
    assert difference([words], [words], near) is None
    assert difference([words], [words[::-1]], near) == "output 0: other strings"
    assert difference([None], [None], near) is None
    assert difference([x], [None], near) == "output 0 is ndarray, not None"
    nan = np.array([np.nan], np.float32)
    assert difference([nan], [nan], near) is None
    assert difference([nan], [x[:1]], near) is not None


def results() -> list[Result]:
    return [
        Result("a1", "Add", Verdict.PASS, fixed=("axes",)),
        Result("a2", "Add", Verdict.UNSUPPORTED, "operator 'Add' (node 'n7') is not supported"),
        Result("b1", "Mul", Verdict.PASS),
        Result("b2", "Mul", Verdict.FALLBACK),
    ]


def test_a_reason_keeps_the_numbers_of_its_first_case() -> None:
    found = [
        Result(name, "Add", Verdict.UNSUPPORTED, f"ORT 1.{name} takes no region (node 'n{name}')")
        for name in ("31", "32")
    ]
    reasons = summary.of("onnx-node", found, 2, core=True).reasons()
    assert reasons == [(2, Verdict.UNSUPPORTED, "ORT 1.31 takes no region")]


def test_results_are_counted_and_told() -> None:
    found = summary.of("onnx-node", results(), 5, core=True)
    text = found.text()
    assert "pass         " in text
    assert "1 cases were compiled with inputs that decide shapes as constants" in text
    assert "interrupted: 4 of 5 cases were run" in text
    assert found.reasons() == [(1, Verdict.UNSUPPORTED, "operator 'Add' is not supported")]
    document = json.loads(json.dumps(found.to_json()))
    assert document["counts"] == {
        "pass": 2,
        "fallback": 1,
        "unsupported": 1,
        "error": 0,
        "wrong": 0,
    }
    again = Document.from_json(document)
    assert again.summary == found
    made = page([again])
    assert "| onnx-node, core | 4 of 5 | 2 | 1 | 1 | 0 | 0 | 75.0 % |" in made
    assert "Every answer is right, with help or without, of: Mul 2." in made
    with pytest.raises(InputError, match="not a document of"):
        Document.from_json({"cases": []})


def test_suites_are_found_by_name() -> None:
    assert {"onnx-models", "onnx-node"} <= set(suites().names())
    for name, kind in suites().all():
        assert issubclass(kind, Suite), name
    with pytest.raises(PluginError, match="did you mean 'onnx-node'"):
        suites().create("onnx-nodes")


def test_help_can_be_refused() -> None:
    assert named("onnx-node", fallback=True) == "onnx-node"
    assert named("onnx-node", fallback=False) == "onnx-node{fallback=false}"
    both = named("onnx-models{engine=ort}", fallback=False)
    assert both == "onnx-models{engine=ort fallback=false}"
    with pytest.raises(InputError, match="the suite torch-opinfo gets no help"):
        named("torch-opinfo", fallback=False)


@pytest.mark.parametrize(("fallback", "verdict"), [(True, "fallback"), (False, "unsupported")])
def test_what_another_runtime_helps_with_is_told_apart(fallback: bool, verdict: str) -> None:
    made = onnx.helper.make_node("NonZero", ["x"], ["y"])
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([made], "g", [value("x", 1, [3])], [value("y", 7, None)])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    case = Case(model, [([np.array([0, 1, 2], np.float32)], [np.array([[1, 2]])])], EXACT)
    assert str(judged("a", "g", lambda: examine(case, fallback=fallback)).verdict) == verdict


@pytest.mark.parametrize(("answer", "right"), [(1.0, True), (2.0, False), (0.5, False)])
def test_an_answer_nearer_to_float64_s_than_the_stored_one_is_right(
    answer: float, right: bool
) -> None:
    made = onnx.helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([made], "g", [value("x", 1, [3])], [value("y", 1, [])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    x = np.array([1e8, 1, -1e8], np.float32)
    got, stored = (np.array(v, np.float32) for v in (answer, 0.0))
    assert nearer(model, [x], [got], [stored], Tolerance(1e-3, 1e-7)) == right


def test_casts_and_constants_do_not_round_where_float64_judges() -> None:
    made = [
        onnx.helper.make_node("Cast", ["x"], ["a"], to=10),
        onnx.helper.make_node("Constant", [], ["c"], value_float=0.1),
        onnx.helper.make_node("CastLike", ["c", "a"], ["d"]),
        onnx.helper.make_node("Mul", ["a", "d"], ["y"]),
    ]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(made, "g", [value("x", 1, [1])], [value("y", 10, [1])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    (exact,) = outputs(model, [np.array([0.3], np.float32)])
    assert exact.dtype == np.float64
    np.testing.assert_allclose(exact, 0.03, 1e-7)


def test_drawn_numbers_are_no_wrong_answer() -> None:
    made = onnx.helper.make_node("RandomUniformLike", ["x"], ["y"], seed=1.0)
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph([made], "g", [value("x", 1, [3])], [value("y", 1, [3])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    x = np.zeros(3, np.float32)
    with pytest.raises(ModelError, match="it draws random numbers"):
        examine(Case(model, [([x], [x])], EXACT), "ort")
    still = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([still], "g", [value("x", 7, [3])], [value("y", 7, [3])])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    x = x.astype(np.int64)
    assert examine(Case(model, [([x], [x + 1])], EXACT), "ort").verdict == Verdict.WRONG


def test_bad_calls_are_refused_before_anything_starts() -> None:
    result = CliRunner().invoke(command, ["--suite", "onnx-nod"])
    assert isinstance(result.exception, PluginError)
    assert CliRunner().invoke(command, ["--jobs", "0"]).exit_code == 2


def test_entries_and_results_are_values() -> None:
    one = results()[0]
    assert Result.from_json(json.loads(json.dumps(one.to_json()))) == one
    assert Entry("a", "b") == Entry("a", "b")
