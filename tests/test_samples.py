"""What calibrates never verifies."""

import dataclasses
import itertools
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import tvm

from hybridc.compiler import dims, driver, frontend
from hybridc.compiler.assurance import calibration, certify, timing
from hybridc.compiler.assurance.certify import examine
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.assurance.open_answers import References
from hybridc.compiler.assurance.samples import Samples, samples
from hybridc.compiler.assurance.terms import Terms, Trial
from hybridc.compiler.assurance.verify import USUAL
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError
from hybridc.compiler.measurement.clock import Clock
from hybridc.compiler.model import Model, TensorSpec, random_feed
from hybridc.compiler.orchestration import stages
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.orchestration.time_budget import OutOfTimeError, TimeBudget

pytestmark = pytest.mark.usefixtures("hasty")

MODEL = Model(
    "m",
    tvm.IRModule({}),
    (TensorSpec("x", (1, 4), "float32"),),
    (TensorSpec("y", (1, 4), "float32"),),
    lambda feed: [feed["x"]],
)


def data(count: int, seed: int = 1) -> dict[str, Any]:
    return {"x": np.random.default_rng(seed).standard_normal((count, 1, 4)).astype("float32")}


def chosen(**options: Any) -> Samples:
    return samples(MODEL, plans.plan(Options(dtype=options.pop("dtype", "int8"), **options)))


def hashes(found: Samples) -> tuple[set[bytes], set[bytes]]:
    """The samples that verify, and those that calibrate."""
    assert found.calibration is not None
    calibrating = {array.tobytes() for (array,) in found.calibration.feeds}
    return {feed["x"].tobytes() for feed in found.feeds}, calibrating


def test_the_reference_is_asked_while_there_is_time() -> None:
    asked: list[Any] = []

    def reference(feed: Any) -> list[Any]:
        asked.append(feed)
        return [feed["x"]]

    def check(step: str) -> None:
        if len(asked) == 5:
            raise OutOfTimeError(step)

    with pytest.raises(OutOfTimeError, match="the reference has answered all samples"):
        chosen(dtype="fp32", calibration=data(7)).answered(reference, check)
    assert len(asked) == 5


def test_an_artifact_is_verified_while_there_is_time(tiny_model: Path) -> None:
    model, made = frontend.load(tiny_model), driver.compile(tiny_model, verify="off")
    feeds: Any = [random_feed(model.inputs, seed) for seed in range(3)]
    trial = Trial(model, feeds, [model.reference(feed) for feed in feeds])
    accurate = Contract(min_accuracy={"cosine": 0.5})
    # The clock is asked once at the beginning, and before each step.
    for ends, step in (
        (2.5, "all samples are verified"),
        (3.5, "all answers are compared"),
        (4.5, "the accuracy cosine is known"),
    ):
        seconds = itertools.count()
        time_budget = TimeBudget(ends, now=lambda seconds=seconds: next(seconds))
        terms = Terms(True, USUAL, accurate, "data", time_budget=time_budget)
        with pytest.raises(OutOfTimeError, match=f"{ends} s ends before {step}"):
            examine(made, trial, terms, 0, Clock(lambda _: None).stage)


def test_each_step_of_a_verification_gets_what_the_last_one_left(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, made = frontend.load(tiny_model), driver.compile(tiny_model, verify="off")
    now, left = [0.0], list[float | None]()

    def validate(_: Any) -> float:
        now[0] += 40.0
        return 1.0

    def timed(*given: Any) -> Any:
        left.append(given[-1])
        without: Any = (*given[:-1], 0.0)
        return timing.timed(*without)

    time_budget = TimeBudget(100.0, now=lambda: now[0])
    limits = Contract("1h", max_drop={"validate": 1.0}, validate=validate)
    terms = Terms(True, USUAL, limits, "data", time_budget=time_budget)
    trial = Trial(model, [random_feed(model.inputs)], [])
    monkeypatch.setattr(certify, "timing", SimpleNamespace(timed=timed))
    examine(made, trial, terms, 0, Clock(lambda _: None).stage)
    assert left == [20.0]


@pytest.mark.parametrize("count", [2, 3, 17])
def test_data_are_split_by_the_seed(count: int) -> None:
    found = chosen(calibration=data(count))
    verifying, calibrating = hashes(found)
    assert len(verifying) + len(calibrating) == count
    assert not verifying & calibrating
    assert found.calibrated is not None
    assert found.calibrated["samples"] == count // 2 == len(calibrating)
    assert found.calibrated["data_blake3"] != calibration.digest(found.feeds)
    assert hashes(chosen(calibration=data(count))) == (verifying, calibrating)
    if count > 3:
        assert hashes(chosen(calibration=data(count), seed=1)) != (verifying, calibrating)


def test_validation_data_leave_all_others_to_calibration() -> None:
    found = chosen(calibration=data(5), validation=data(3, seed=2))
    verifying, calibrating = hashes(found)
    assert (len(verifying), len(calibrating)) == (3, 5)
    assert found.told == "validation data"
    with pytest.raises(InputError, match="missing inputs"):
        chosen(calibration=data(5), validation={"y": data(3)["x"]})


@pytest.mark.parametrize("count", [0, 1])
def test_without_data_to_split_random_ones_calibrate(count: int) -> None:
    found = chosen(calibration=data(count) if count else None)
    verifying, calibrating = hashes(found)
    assert len(verifying) == (1 if count else 2)  # outputs are of four numbers
    assert len(calibrating) > 1
    assert not verifying & calibrating
    assert found.calibration is not None
    assert not found.calibration.given
    assert found.calibration.told.startswith("random")


def test_where_nothing_calibrates_all_data_verify() -> None:
    found = chosen(dtype="auto", calibration=data(6))
    assert len(found.feeds) == 6
    assert found.calibration is None
    limits = Contract("1ms", min_accuracy={"cosine": 0.9})
    assert len(chosen(dtype="fp32", calibration=data(6), contract=limits).feeds) == 6


def test_what_takes_no_ranges_is_verified_on_all_data_and_the_rest_on_unseen_ones() -> None:
    limits = Contract("1ms", min_accuracy={"cosine": 0.9})
    found, wanted = chosen(dtype="auto", calibration=data(7), contract=limits).answered(
        MODEL.reference
    )
    assert (len(found.feeds), found.told) == (7, "calibration data")
    trial = Trial(MODEL, found.feeds, wanted, found)
    unseen = trial.unseen()
    assert unseen.data is not None
    verifying, calibrating = hashes(unseen.data)
    assert (len(verifying), len(calibrating)) == (4, 3)
    assert not verifying & calibrating
    assert verifying | calibrating == {feed["x"].tobytes() for feed in trial.feeds}
    assert unseen.data.told == "calibration data, split"
    for feed, (answer,) in zip(unseen.feeds, unseen.wanted, strict=True):
        np.testing.assert_array_equal(feed["x"], answer)
    assert unseen.unseen() == unseen
    # The same samples as where nothing else is tried.
    assert hashes(chosen(calibration=data(7))) == (verifying, calibrating)


@pytest.mark.parametrize("strategy", ["fusion", "adaptive", "parallel", "hierarchical"])
def test_strategies_that_time_anyhow_take_ranges_from_the_data(
    strategy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a limit on time the stages with ranges are there all the same."""

    def taken(_: Model, plan: plans.Plan) -> Samples:
        assert stages.calibrates(plan.options)
        raise InputError("enough")

    monkeypatch.setattr("hybridc.compiler.assurance.samples.samples", taken)
    limits = Contract(min_accuracy={"cosine": 0.99})
    options = Options(contract=limits, steering=Steering(strategy), calibration=data(9))
    with pytest.raises(InputError, match="enough"):
        driver.compile_model(MODEL, options)


def test_example_inputs_stand_beside_random_ones() -> None:
    examples = ({"x": np.full((1, 4), 9, "float32")},)
    model = dataclasses.replace(MODEL, examples=examples)
    found, wanted = samples(model, plans.plan(Options(dtype="fp32"))).answered(model.reference)
    assert [feed["x"].max() for feed in found.feeds][1:] == [9]
    assert len(wanted) == 2
    assert found.told == "random, seed 0, and the example inputs"


@pytest.mark.parametrize("dtype", ["fp32", "int8"])
def test_random_inputs_that_are_refused_leave_the_examples(dtype: str) -> None:
    def picky(feed: Any) -> list[Any]:
        if feed["x"].max() != 9:
            raise InputError("9 is wanted")
        return [feed["x"]]

    examples = ({"x": np.full((1, 4), 9, "float32")},)
    model = dataclasses.replace(MODEL, examples=examples)
    found, wanted = samples(model, plans.plan(Options(dtype=dtype))).answered(picky)
    assert (len(found.feeds), len(wanted), found.told) == (1, 1, "the example inputs")
    with pytest.raises(InputError, match="9 is wanted"):
        samples(MODEL, plans.plan(Options(dtype=dtype))).answered(picky)


def test_several_samples_are_drawn_where_a_metric_is_limited() -> None:
    def count(**limits: Any) -> int:
        return len(chosen(dtype="fp32", contract=Contract(**limits)).feeds)

    assert count() == count(max_size="1GB") == 1
    assert count(validate=len, min_accuracy={"validate": 1}) == 1
    assert count(min_accuracy={"cosine": 0.9}) == 5


@pytest.mark.parametrize(("sizes", "count"), [([1], 8), ([3, 100], 3), ([1000], 1), ([0], 1)])
def test_outputs_of_few_elements_take_several_samples(sizes: list[int], count: int) -> None:
    assert calibration.enough(sizes) == count
    assert calibration.seeds(7, count) == calibration.seeds(7, 8)[:count]


def test_a_single_number_is_compared_at_several_samples_where_sizes_are_open() -> None:
    """One number alone may be near zero by chance, and what is allowed is a share of it."""
    rows = dims.Dim("rows", 1, 64)
    spec, outputs = TensorSpec("x", (rows, 3), "float32"), (TensorSpec("y", (rows,), "float32"),)
    model = Model("sums", cast("Any", None), (spec,), outputs, lambda feed: [feed["x"].sum(1)])
    counts = {len(each.wanted[0][0]): len(each.feeds) for each in References().of(model, 0)}
    assert counts[1] == 8
    assert min(rows * count for rows, count in counts.items()) >= 8
