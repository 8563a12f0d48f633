"""Rows that a detector selects: another order of equal scores is right, and every fault is seen."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
import torch
from onnx import TensorProto
from onnx_models import build, node

from hybridc.compiler import driver, frontend
from hybridc.compiler.assurance import answers, verify
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.model import Array, Model, TensorSpec

CANDIDATES, ALIKE, BEST, WIDTH = 120, 4, 40, 16
SHAPES = {"boxes": (2, BEST, 4), "scores": (2, BEST), "labels": (2, BEST)}


@dataclass(frozen=True)
class Detector:
    """The best of candidates whose scores are alike up to rounding by fours.

    `off` is by how many roundings the scores of each call are off, as `seed` draws them.
    """

    weights: Array
    off: float = 0.0
    seed: int = 0

    def rounded(self, move: Callable[[Array], Array], seed: int = 0) -> "Detector":
        return Detector(move(self.weights), 4.0, seed)

    def scores(self, feed: Mapping[str, Any]) -> Array:
        noise = np.random.default_rng(self.seed).uniform(-1, 1, (2, CANDIDATES))
        found = feed["x"] @ self.weights * (1 + self.off * 2.0**-24 * noise)
        return cast("Array", found.astype(np.float32))

    def __call__(self, feed: Mapping[str, Any]) -> list[Array]:
        scores = self.scores(feed)
        return rows(scores, np.argsort(-scores, axis=-1, kind="stable")[:, :BEST])


def rows(scores: Array, chosen: Array) -> list[Array]:
    """The boxes, scores and labels of candidates."""
    boxes = np.stack([chosen * 8, chosen * 8 + 5, chosen * 3 + 1, chosen * 3 + 9], -1)
    return [boxes.astype(np.float32), np.take_along_axis(scores, chosen, -1), chosen * 7 % 11]


def detector() -> tuple[Detector, dict[str, Array]]:
    rng = np.random.default_rng(3)
    groups = rng.uniform(1, 2, (WIDTH, CANDIDATES // ALIKE)).astype(np.float32)
    weights = np.repeat(groups, ALIKE, axis=1)
    nudges = rng.integers(-1, 2, weights.shape) * 2.0**-23
    feed = {"x": rng.uniform(1, 2, (2, WIDTH)).astype(np.float32)}
    return Detector((weights * (1 + nudges)).astype(np.float32)), feed


def verdict(reference: Any, feed: Mapping[str, Array], got: list[Array]) -> list[bool]:
    """Whether each output is right, where those of `got` are there."""
    outputs = [
        TensorSpec(name, shape, str(array.dtype))
        for (name, shape), array in zip(SHAPES.items(), got, strict=False)
    ]
    spec = TensorSpec("x", (2, WIDTH), "float32")
    model = Model("detector", cast("Any", None), (spec,), tuple(outputs), reference)
    found = answers.compare(model, [feed], [reference(feed)], [got], verify.USUAL)
    return [each.ok for each in found]


@pytest.mark.parametrize("seed", range(4))
def test_another_order_of_equal_scores_is_right(seed: int) -> None:
    reference, feed = detector()
    got = Detector(reference.weights, 2.0, 100 + seed)(feed)
    assert not np.array_equal(got[0], reference(feed)[0])
    assert verdict(reference, feed, got) == [True] * 3


def chosen(reference: Detector, feed: Mapping[str, Array]) -> tuple[Array, Array]:
    """What a right artifact chooses, and its scores."""
    scores = Detector(reference.weights, 2.0, 99).scores(feed)
    return scores, np.argsort(-scores, axis=-1, kind="stable")[:, :BEST]


def _next_candidate(places: Array, row: int) -> None:
    places[1, row] += 1


def _twice(places: Array, row: int) -> None:
    places[1, row] = places[1, row - 1]


def _far(places: Array, row: int) -> None:
    other = (row + BEST // 2) % BEST
    places[1, [row, other]] = places[1, [other, row]]


def _not_the_best(places: Array, row: int) -> None:
    left = np.setdiff1d(np.arange(CANDIDATES), places[1])
    places[1, row] = left[row % len(left)]


def _shifted(places: Array, row: int) -> None:
    places[1] = np.roll(places[1], row % 8 + 1)


def _backwards(places: Array, _row: int) -> None:
    places[1] = places[1, ::-1].copy()


@pytest.mark.parametrize(
    "fault", [_next_candidate, _twice, _far, _not_the_best, _shifted, _backwards]
)
@pytest.mark.parametrize("row", [2, 18, BEST - 1])
def test_a_wrong_index_is_refused(fault: Callable[[Array, int], None], row: int) -> None:
    reference, feed = detector()
    scores, places = chosen(reference, feed)
    right = places.copy()
    fault(places, row)
    assert not np.array_equal(right, places)
    # With the scores of the right ones, too: a gather beside a sort that is right.
    for held in (places, right):
        got = rows(scores, places)
        got[1] = rows(scores, held)[1]
        assert not verdict(reference, feed, got)[0]


@pytest.mark.parametrize("row", [2, 18, BEST - 1])
def test_parts_of_two_rows_are_no_row(row: int) -> None:
    reference, feed = detector()
    scores, places = chosen(reference, feed)
    for output in (0, 2):
        got = rows(scores, places)
        other = next(i for i in (row - 1, row - 2) if got[2][1, i] != got[2][1, row])
        got[output][1, [row, other]] = got[output][1, [other, row]]
        assert not all(verdict(reference, feed, got))


@pytest.mark.parametrize("value", [np.nan, np.inf, 3.5, 1e6])
def test_a_broken_number_among_equal_scores_is_refused(value: float) -> None:
    reference, feed = detector()
    got = Detector(reference.weights, 2.0, 99)(feed)
    got[0][1, 7, 2] = value
    assert verdict(reference, feed, got)[0] is False


def test_a_class_may_be_what_the_reference_chooses_itself_and_no_other() -> None:
    """The largest of scores that are alike: between places 5 and 90 stand 84 that are wrong."""
    scores = np.full(CANDIDATES, 1.0, np.float32)
    scores[[5, 90]] = 2.0, np.nextafter(np.float32(2), np.float32(0))

    class Largest(Detector):
        def __call__(self, feed: Mapping[str, Any]) -> list[Array]:
            noise = np.random.default_rng(self.seed).uniform(-1, 1, (2, CANDIDATES))
            return [np.argmax(self.weights * (1 + self.off * 2.0**-24 * noise), axis=-1)]

        def rounded(self, move: Callable[[Array], Array], seed: int = 0) -> "Largest":
            del move
            return Largest(self.weights, 4.0, seed)

    reference, feed = Largest(scores), {"x": np.ones((2, WIDTH), np.float32)}
    for place, right in ((5, True), (90, True), (6, False), (47, False), (89, False), (91, False)):
        assert verdict_of_places(reference, feed, np.array([5, place])) is right


def verdict_of_places(reference: Any, feed: Mapping[str, Array], got: Array) -> bool:
    spec = TensorSpec("x", (2, WIDTH), "float32")
    out = TensorSpec("places", (2,), "int64")
    model = Model("largest", cast("Any", None), (spec,), (out,), reference)
    (found,) = answers.compare(model, [feed], [reference(feed)], [[got]], verify.USUAL)
    return found.ok


def test_references_choose_by_numbers_that_are_off_by_some_roundings() -> None:
    """Of equal scores others come first, by ONNX Runtime and by torch; of others none do."""
    size = 64
    proto = build(
        [node("Sigmoid", "x", "s"), node("TopK", "s k", "v i")],
        [("x", TensorProto.FLOAT, [1, size])],
        [("v", TensorProto.FLOAT, None), ("i", TensorProto.INT64, None)],
        {"k": np.array([size])},
    )

    class Best(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return tuple(torch.topk(torch.sigmoid(x), size))

    module = frontend.load(Best(), example_inputs=(torch.zeros(1, size),))
    for model in (frontend.load(proto), module):
        name = model.inputs[0].name
        reference: Any = model.reference
        alike = {name: np.zeros((1, size), np.float32)}
        apart = {name: np.arange(size, dtype=np.float32)[None] / size}
        found = [reference.rounded(lambda w: w, seed)(alike)[1] for seed in (1, 2)]
        assert not np.array_equal(*found)
        assert all(np.array_equal(np.sort(each), np.arange(size)[None]) for each in found)
        assert np.array_equal(reference.rounded(lambda w: w, 1)(apart)[1], reference(apart)[1])
    assert "RandomUniformLike" not in [n.op_type for n in proto.graph.node]


def test_rows_in_another_order_are_told_and_certified() -> None:
    class Best(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            columns = torch.rand(WIDTH, 12, generator=torch.manual_seed(0)) + 1
            self.weights = torch.nn.Parameter(columns.repeat_interleave(ALIKE, 1))
            self.boxes = torch.nn.Parameter(torch.rand(12 * ALIKE, 4))

        def forward(self, x: Any) -> Any:
            return self.boxes[(x @ self.weights).topk(6, sorted=False).indices]

    outcome = driver.compile_source(
        Best(), Options(threads=1), example_inputs=(torch.rand(3, WIDTH) + 1,)
    )
    (found,) = outcome.artifact.certificate["agreement"]
    assert found["reordered"] > 0
    assert any("rows that stand elsewhere" in note for note in outcome.report.notes)
