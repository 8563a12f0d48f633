"""A model is reduced to the part that fails, by way of valid models alone."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto
from onnx_models import BOOL, FLOAT, build, node, noise

from hybridc.cli import main
from hybridc.cli.reduce import command
from hybridc.compiler.debugging.reduction import Budget, Reduction
from hybridc.compiler.errors import InputError


def chain() -> Any:
    """Nine operators in a row, with a branch at the fifth."""
    names = ["Relu", "Neg", "Abs", "Exp", "Erf", "Tanh", "Sigmoid", "Sqrt", "Neg"]
    nodes = [node(op, f"v{i}", f"v{i + 1}") for i, op in enumerate(names)]
    nodes += [node("MatMul", "v5 w", "m"), node("Add", "v9 m", "y")]
    given = [("v0", FLOAT, (8, 8))]
    return build(nodes, given, [("y", FLOAT, (8, 8))], {"w": noise(8, 8)})


def has(*operators: str) -> Callable[[Any], bool]:
    def fails(model: Any) -> bool:
        onnx.checker.check_model(model, full_check=True)
        return set(operators) <= {each.op_type for each in model.graph.node}

    return fails


def reduced(model: Any, fails: Callable[[Any], bool], **limits: Any) -> Any:
    inferred = onnx.shape_inference.infer_shapes(model)
    return Reduction(inferred, fails, lambda _: None, Budget(**limits)).run()


@pytest.mark.parametrize("operator", ["Relu", "Erf", "MatMul", "Add"])
def test_one_operator_is_left(operator: str) -> None:
    made = reduced(chain(), has(operator))
    assert [each.op_type for each in made.graph.node] == [operator]
    if operator != "MatMul":  # its weight has a size of its own
        assert all(d.dim_value == 1 for v in made.graph.input for d in v.type.tensor_type.shape.dim)


def test_two_operators_and_the_way_between_them() -> None:
    def fails(model: Any) -> bool:
        """A Sigmoid that reads, over whatever stands between, an Exp."""
        from_exp: set[str] = set()
        for each in model.graph.node:
            if each.op_type == "Sigmoid" and set(each.input) & from_exp:
                return True
            if each.op_type == "Exp" or set(each.input) & from_exp:
                from_exp |= set(each.output)
        return False

    made = reduced(chain(), fails)
    assert [each.op_type for each in made.graph.node] == ["Exp", "Sigmoid"]


def test_subgraphs_keep_what_they_read_outside() -> None:
    def branch(op: str) -> Any:
        out = onnx.helper.make_tensor_value_info("b", FLOAT, (2,))
        return onnx.helper.make_graph([node(op, "h", "b")], "branch", [], [out])

    nodes = [
        node("Neg", "x", "h"),
        node("If", "c", "i", then_branch=branch("Relu"), else_branch=branch("Abs")),
        node("Exp", "i", "y"),
    ]
    model = build(nodes, [("c", BOOL, ()), ("x", FLOAT, (2,))], [("y", FLOAT, (2,))])
    made = reduced(model, has("If"))
    assert [each.op_type for each in made.graph.node] == ["If"]
    assert {value.name for value in made.graph.input} == {"c", "h"}


def test_budgets_are_kept_and_keep_the_best() -> None:
    runs: list[int] = []

    def fails(model: Any) -> bool:
        runs.append(len(model.graph.node))
        return True

    made = reduced(chain(), fails, steps=3)
    assert len(runs) == 3
    assert len(made.graph.node) < 11
    assert len(reduced(chain(), fails, seconds=0.0).graph.node) == 11


def test_a_model_that_does_not_fail() -> None:
    with pytest.raises(InputError, match="succeeds on the model"):
        reduced(chain(), has("Conv"))


def script(folder: Path, operator: str) -> str:
    """A command that fails where a model holds an operator, and says so."""
    path = folder / "check.py"
    path.write_text(
        "import onnx, sys\n"
        "found = {n.op_type for n in onnx.load(sys.argv[1]).graph.node}\n"
        f"print('fault of Tanh' if 'Tanh' in found else 'none')\n"
        f"sys.exit({operator!r} in found)\n"
    )
    return f"{sys.executable} {path}"


def test_the_verb(tmp_path: Path) -> None:
    model = tmp_path / "model.onnx"
    onnx.save(
        build(
            [node("Tanh", "x", "a"), node("Erf", "a", "y")],
            [("x", FLOAT, (4,))],
            [("y", FLOAT, (4,))],
        ),
        model,
    )
    call = [str(model), "--fails", f"{script(tmp_path, 'Erf')} {{}}"]
    done = CliRunner().invoke(command, [*call, "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert (told["nodes"], told["before"]) == (["Erf"], 2)
    onnx.checker.check_model(onnx.load(told["model"]))
    assert told["model"] == str(tmp_path / "model.reduced.onnx")
    call = [str(model), "--fails", script(tmp_path, "Erf"), "--match", "of Tanh"]
    call += ["-o", str(tmp_path / "other.onnx")]
    done = CliRunner().invoke(command, call, catch_exceptions=False)
    assert "2 of 2 nodes (Tanh, Erf)" in done.stdout


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["{model}", "--fails", ""], "needs a command"),
        (["{model}", "--fails", "'"], "is not a command: No closing quotation"),
        (["{model}", "--fails", "no-such-program"], "cannot run 'no-such-program'"),
        (["{model}", "--fails", "true"], "succeeds on the model"),
        (["{model}", "--fails", "ls -d no", "--match", "yes"], "lacks 'yes'; its last line is"),
        (["missing.onnx", "--fails", "false"], "no such file"),
        (["{broken}", "--fails", "false"], "not an ONNX model"),
        (["{model}", "--fails", "false", "--budget", "soon"], "soon"),
    ],
)
def test_bad_calls(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], call: list[str], message: str
) -> None:
    model, broken = tmp_path / "model.onnx", tmp_path / "broken.onnx"
    onnx.save(build([node("Relu", "x", "y")], [("x", FLOAT, (2,))], [("y", FLOAT, (2,))]), model)
    broken.write_bytes(model.read_bytes()[:20])
    filled = [word.format(model=model, broken=broken) for word in call]
    assert main.run(["reduce", *filled]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.glob("*.reduced.onnx"))


def test_sequences_and_unknown_types_are_left_in_place() -> None:
    nodes = [
        node("SequenceConstruct", "x x", "s"),
        node("ConcatFromSequence", "s", "c", axis=0),
        node("Neg", "c", "y"),
    ]
    made = reduced(
        build(nodes, [("x", FLOAT, (2,))], [("y", FLOAT, (4,))]), has("ConcatFromSequence")
    )
    assert [each.op_type for each in made.graph.node][:2] == [
        "SequenceConstruct",
        "ConcatFromSequence",
    ]


def test_integers_and_shapes_that_weights_fix() -> None:
    table = np.arange(12, dtype=np.float32).reshape(6, 2)
    nodes = [node("Gather", "w i", "g"), node("Relu", "g", "y")]
    model = build(nodes, [("i", TensorProto.INT64, (5,))], [("y", FLOAT, (5, 2))], {"w": table})
    made = reduced(model, has("Gather"))
    assert [each.op_type for each in made.graph.node] == ["Gather"]
    assert made.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1
