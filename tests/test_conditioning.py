"""What an ill-conditioned output may be off, and that faults are not excused by it."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from onnx import TensorProto
from onnx_models import build, node

from hybridc.compiler import frontend
from hybridc.compiler.assurance import answers, verify
from hybridc.compiler.assurance.conditioning import nudged
from hybridc.compiler.assurance.verify import How
from hybridc.compiler.frontends.onnx_reference import OnnxReference
from hybridc.compiler.model import Array, Model, TensorSpec

SIZE = 4096
WEIGHTS = np.random.default_rng(1).standard_normal((SIZE, 50)).astype(np.float32) * 100


def _model(dtype: str = "float32") -> Model:
    """Sums of thousands of large numbers, of which one column is made to cancel."""

    def reference(feed: Mapping[str, Any]) -> list[Array]:
        return [feed["x"].astype(np.float32) @ WEIGHTS]

    spec = TensorSpec("x", (1, SIZE), dtype)
    outputs = (TensorSpec("y", (1, 50), "float32"),)
    return Model("sums", cast("Any", None), (spec,), outputs, reference)


def _feed() -> dict[str, Array]:
    return {"x": np.random.default_rng(0).standard_normal((1, SIZE)).astype(np.float32)}


def _other_order(feed: Mapping[str, Array]) -> Array:
    """The same sums, added up one after the other from the end."""
    products = feed["x"].T * WEIGHTS
    return np.cumsum(products[::-1], axis=0, dtype=np.float32)[-1:]


def test_another_order_of_sums_is_no_fault() -> None:
    model, feed = _model(), _feed()
    nearly = model.reference(feed)[0][0, 0] - np.float32(0.01)

    def cancelled(sums: Array) -> Array:
        return sums - np.where(np.arange(50) == 0, nearly, np.float32(0))

    def reference(given: Mapping[str, Any]) -> list[Array]:
        return [cancelled(model.reference(given)[0])]

    cancelling = replace(model, reference=reference)
    wanted, got = reference(feed)[0], cancelled(_other_order(feed))
    assert not verify.compare("y", wanted, got).ok
    (found,) = answers.compare(cancelling, [feed], [[wanted]], [[got]], verify.USUAL)
    assert found.ok
    assert 0.01 < found.condition < 10
    assert "one rounding" in found.told()


@pytest.mark.parametrize("fault", [30.0, np.nan, np.inf])
def test_a_fault_stays_one(fault: float) -> None:
    model, feed = _model(), _feed()
    wanted = model.reference(feed)[0]
    got = wanted.copy()
    got[0, 7] += fault
    (found,) = answers.compare(model, [feed], [[wanted]], [[got]], verify.USUAL)
    assert not found.ok
    assert found.first == (0, 7)


@pytest.mark.parametrize("how", [verify.USUAL, How(precision="bf16")])
def test_an_answer_that_is_drawn_excuses_nothing(how: How) -> None:
    rng = np.random.default_rng(0)

    def drawn(_: Any = None) -> list[Array]:
        return [rng.standard_normal((1, 50)).astype(np.float32)]

    model, feed = replace(_model(), reference=drawn), _feed()
    (found,) = answers.compare(model, [feed], [drawn()], [drawn()], how)
    assert not found.ok


def test_tolerances_of_the_user_are_kept_to() -> None:
    model, feed = _model(), _feed()
    wanted, got = model.reference(feed)[0], _other_order(feed)
    (found,) = answers.compare(model, [feed], [[wanted]], [[got]], How(0.0, 1e-6))
    assert not found.ok


def test_only_inputs_of_fp32_have_neighbours() -> None:
    feed = {"x": np.ones(8, np.float32), "ids": np.arange(8), "zero": np.zeros(8, np.float32)}
    moved = nudged(feed, np.random.default_rng(0))
    assert np.array_equal(moved["ids"], feed["ids"])
    assert np.array_equal(moved["zero"], feed["zero"])
    assert 0 < np.abs(moved["x"] - 1).max() <= np.finfo(np.float32).eps
    model = _model("int64")
    wanted = model.reference({"x": np.ones((1, SIZE), np.int64)})[0]
    (found,) = answers.compare(model, [feed], [[wanted]], [[wanted + 1]], verify.USUAL)
    assert not found.ok


def _places(least: float) -> tuple[Model, dict[str, Array]]:
    """The places of the largest of sums, the second of which is `least` of the first."""
    weights = np.array([1.0, least, 0.5, 0.25], np.float32)

    def reference(feed: Mapping[str, Any]) -> list[Array]:
        sums = feed["x"] @ WEIGHTS[:, :4] ** 2 * weights / (WEIGHTS[:, :4] ** 2).sum(0)
        return [np.argsort(-sums, axis=-1)]

    spec, outputs = TensorSpec("x", (64, SIZE), "float32"), (TensorSpec("y", (64, 4), "int64"),)
    model = Model("places", cast("Any", None), (spec,), outputs, reference)
    return model, {"x": np.random.default_rng(0).uniform(0.9, 1, (64, SIZE)).astype(np.float32)}


@pytest.mark.parametrize(("least", "right"), [(1 - 1e-5, True), (0.9, False)])
def test_lower_precisions_may_choose_another_where_two_are_alike(least: float, right: bool) -> None:
    model, feed = _places(least)
    (wanted,) = model.reference(feed)
    got = wanted.copy()
    got[3, :2] = wanted[3, 1::-1]
    how = How(precision="bf16")
    (found,) = answers.compare(model, [feed], [[wanted]], [[got]], how)
    assert found.ok is right
    assert found.excused == (2 if right else 0)
    assert not answers.compare(model, [feed], [[wanted]], [[wanted + 1]], how)[0].ok
    assert not answers.compare(model, [feed], [[wanted]], [[got]], verify.USUAL)[0].ok


def test_faults_of_a_lower_precision_stay_faults() -> None:
    model, feed = _model(), _feed()
    (wanted,) = model.reference(feed)
    for fault in (np.abs(wanted).max(), np.nan):
        got = wanted.copy()
        got[0, 7] += fault
        (found,) = answers.compare(model, [feed], [[wanted]], [[got]], How(precision="bf16"))
        assert not found.ok


class Alike:
    """Places of the largest of sums, two of which are alike whatever the inputs are."""

    def __init__(self, weights: Array) -> None:
        self.weights = weights

    def __call__(self, feed: Mapping[str, Any]) -> list[Array]:
        sums = feed["x"] @ self.weights
        return [np.argsort(-sums, axis=-1, kind="stable"), -np.sort(-sums, axis=-1)]

    def rounded(self, move: Callable[[Array], Array], _seed: int = 0) -> "Alike":
        return Alike(move(self.weights))


@pytest.mark.parametrize("known", [True, False])
def test_what_is_alike_up_to_rounding_may_stand_in_either_order(known: bool) -> None:
    columns = np.random.default_rng(1).uniform(1, 2, (64, 3)).astype(np.float32)
    reference = Alike(
        np.concatenate([columns, columns[:, :1]], 1) * np.array([1, 2, 3, 1], np.float32)
    )
    outputs = (TensorSpec("places", (5, 4), "int64"), TensorSpec("sums", (5, 4), "float32"))
    spec = TensorSpec("x", (5, 64), "float32")
    asked = reference if known else reference.__call__  # which has no weights to be told
    model = Model("places", cast("Any", None), (spec,), outputs, asked)
    feed = {"x": np.random.default_rng(0).uniform(1, 2, (5, 64)).astype(np.float32)}
    wanted = reference(feed)
    places = wanted[0][:, [0, 1, 3, 2]]
    found = answers.compare(model, [feed], [wanted], [[places, wanted[1]]], verify.USUAL)
    assert [each.ok for each in found] == [known, True]
    for wrong in (wanted[0][:, [1, 0, 2, 3]], wanted[0] + 1):
        (found, _) = answers.compare(model, [feed], [wanted], [[wrong, wanted[1]]], verify.USUAL)
        assert not found.ok


def _next(weight: Array) -> Array:
    return np.nextafter(weight, np.float32(np.inf))


def test_weights_of_a_reference_move_and_come_back() -> None:
    weight = np.ones((3, 2), np.float32)
    feed = {"x": np.eye(3, dtype=np.float32)}
    proto = build(
        [node("MatMul", "x w", "y")],
        [("x", TensorProto.FLOAT, [3, 3])],
        [("y", TensorProto.FLOAT, None)],
        {"w": weight},
    )
    module = torch.nn.Linear(3, 2, bias=False)
    module.weight.data.fill_(1.0)
    torch_model = frontend.load(module, example_inputs=(torch.eye(3),))
    for reference, given in (
        (OnnxReference(proto), feed),
        (torch_model.reference, {torch_model.inputs[0].name: feed["x"]}),
    ):
        assert np.array_equal(cast("Any", reference).rounded(_next)(given)[0], _next(weight))
        assert np.array_equal(reference(given)[0], weight)
