"""Limits on accuracy that would hold of any artifact are refused, or told."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx_models import FLOAT, INT64, build, node, noise

from hybridc.compiler import driver
from hybridc.compiler.assurance import coverage
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError
from hybridc.compiler.model import Model, OpaqueSpec, TensorSpec

pytestmark = pytest.mark.usefixtures("hasty")

ROWS = np.array([[1.0, 2.0]], np.float32)
SCORE, EMPTY, DEAD = ROWS[:, :1], ROWS[:0], 0 * ROWS
LOST, LABEL = np.inf * ROWS, np.array([[3]])


def model(*outputs: Any) -> Model:
    """A model of which nothing is known but what it answered."""
    specs = [
        OpaqueSpec(f"y{i}", type="seq(tensor(float))")
        if isinstance(each, list)
        else TensorSpec(f"y{i}", each.shape, str(each.dtype))
        for i, each in enumerate(outputs)
    ]
    return Model("m", None, (), tuple(specs), lambda _: [])


def told(metric: str, *outputs: Any) -> list[str]:
    return coverage.check(model(*outputs), [outputs], [metric], "random, seed 0")


@pytest.mark.parametrize(
    ("metric", "output", "why"),
    [
        ("cosine", EMPTY, "output 'y0' is empty; give --calibration"),
        ("max-abs", EMPTY, "is empty"),
        ("top1", EMPTY, "is empty"),
        ("cosine", DEAD, "is zero throughout; give --calibration"),
        ("snr", DEAD, "is zero throughout"),
        ("max-rel", DEAD, "is zero throughout"),
        ("cosine", LOST, "has no finite number"),
        ("max-abs", LOST, "has no finite number"),
        ("top1", DEAD, "has rows of equal numbers; give --calibration"),
        ("top1", SCORE, "has single numbers, and no rows of them; limit a metric of your own"),
        ("cosine", [ROWS], "is seq.tensor.float..; limit a metric of your own"),
    ],
)
def test_a_limit_that_says_nothing_is_refused(metric: str, output: Any, why: str) -> None:
    said = rf"accuracy {metric} says nothing of this model \(random, seed 0\): .*{why}"
    with pytest.raises(InputError, match=said):
        told(metric, output)
    (note,) = told(metric, ROWS, output)
    assert note.startswith(f"accuracy {metric} says nothing of 1 of 2 outputs (random, seed 0)")


def test_limits_that_say_something_stand() -> None:
    assert told("max-abs", DEAD) == []
    assert told("top1", LABEL) == []
    assert told("cosine", SCORE) == []
    assert told("validate", EMPTY) == []
    assert coverage.check(model(EMPTY), [], ["cosine"], "") == []  # nobody asked the reference


def test_one_sample_of_several_is_enough() -> None:
    found = model(DEAD)
    assert coverage.check(found, [[DEAD], [ROWS]], ["cosine"], "") == []


def test_outputs_without_a_limit_are_known() -> None:
    found, answers = model(ROWS, SCORE, [ROWS]), [[ROWS, SCORE, [ROWS]]]
    assert coverage.unlimited(found, answers, ["top1"]) == {"y1", "y2"}
    assert coverage.unlimited(found, answers, ["top1", "cosine"]) == {"y2"}
    assert coverage.unlimited(found, answers, ["top1", "validate"]) == frozenset()


def two_heads() -> onnx.ModelProto:
    """A class, and a score beside it that no `top1` sees."""
    nodes = [
        node("MatMul", "x w", "scores"),
        node("ArgMax", "scores", "class", axis=-1),
        node("MatMul", "x v", "score"),
    ]
    outputs = [("class", INT64, (1, 1)), ("score", FLOAT, (1, 1))]
    return build(nodes, [("x", FLOAT, (1, 64))], outputs, {"w": noise(64, 10), "v": noise(64, 1)})


def test_an_output_that_no_limit_sees_keeps_its_tolerance() -> None:
    """Of ranges that data gave a limit on top1 says nothing of a single score."""
    data = {"x": np.random.default_rng(0).standard_normal((8, 1, 64)).astype(np.float32)}
    limits = Contract(min_accuracy={"top1": 0.0})
    options = Options(dtype="int8", contract=limits, calibration=data)
    found = driver.compile_source(two_heads(), options)
    assert any("top1 says nothing of 1 of 2 outputs" in note for note in found.report.notes)
    assert "top1 says nothing of 1 of 2 outputs" in found.report.summary()
    seen = found.artifact.certificate["measured"]["accuracy"]["top1"]["value"]
    assert 0 <= seen <= 1


def test_a_model_that_answers_differently_each_time_is_said_to() -> None:
    nodes = [node("Dropout", "x half on", "y")]
    weights = {"half": np.float32(0.5), "on": np.array(True)}
    drops = build(nodes, [("x", FLOAT, (1, 64))], [("y", FLOAT, (1, 64))], weights)
    with pytest.raises(InputError, match="'y' of the model itself is another each time"):
        driver.compile_source(drops, Options())
