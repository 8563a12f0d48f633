"""Modes and budgets, and what components contributed, on candidates that are made up."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from made_up import FACTS, FAST, Candidate, Clock, Maker, all_better, go, verdicts

from hybridc.compiler import driver, frontend
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import PassError
from hybridc.compiler.measurement import clock as measurement
from hybridc.compiler.orchestration import cascade
from hybridc.compiler.orchestration.bandit import Bandit
from hybridc.compiler.orchestration.budgeting import Budgeting
from hybridc.compiler.orchestration.expected_gains.gains import Gain
from hybridc.compiler.orchestration.expected_gains.history import Past
from hybridc.compiler.orchestration.stages import Stage
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.orchestration.time_budget import OutOfTimeError, TimeBudget

pytestmark = pytest.mark.usefixtures("bf16_alone")


def test_the_levels_of_hierarchical_share_the_budget_by_weight() -> None:
    for weight, least, most in ((1.0, 47, 50), (0.1, 7, 9)):
        maker = all_better()
        weights = {"graph": 1.0, "subgraph": 1.0, "kernel": weight}
        steering = Steering(
            "hierarchical", budget=100.0, level_weights=weights, levels=("kernel", "graph")
        )
        go(steering, maker)
        assert least < float(str(maker.budgets[0])[:-1]) < most


def test_a_mode_says_how_much_of_the_budget_goes_to_tuning() -> None:
    spent: dict[str | None, float] = {}
    for mode in (None, "neural", "quantum", "balanced"):
        maker = all_better()
        go(Steering("fusion", mode=mode, budget=101.0), maker)
        spent[mode] = float(str(maker.budgets[0])[:-1])
    assert spent[None] == spent["balanced"] == pytest.approx(100 / 3 - 1, abs=0.1)
    assert spent["neural"] == pytest.approx(100 * 3 / 5 - 1, abs=0.1)
    maker = all_better()
    steering = Steering("fusion", budget=101.0, weights={"neural": 1, "precision": 3})
    go(steering, maker)
    assert float(str(maker.budgets[0])[:-1]) == pytest.approx(24, abs=0.1)


def test_tuning_that_nothing_is_compared_with_ends_in_time_too() -> None:
    maker = Maker({"tuned": Candidate(4)})
    go(Steering(budget=100.0), maker, Contract())
    assert maker.budgets == ["80.000s"]  # the rest is for building


def test_a_component_of_no_weight_gets_nothing_of_a_budget() -> None:
    steering = Steering("fusion", budget=100.0, weights={"precision": 1.0})
    found = go(steering, all_better())
    assert verdicts(found)["tuned"] == "no time"
    assert verdicts(found)["bf16"] == "kept"


def test_dynamic_moves_the_budget_to_what_pays_off() -> None:
    """Tuning takes four turns where each of them helps, and fewer turns first where none does."""
    maker = all_better()
    found = go(Steering("fusion", mode="dynamic", budget=100.0), maker)
    turns = [each for each in found.decisions if each.component == "neural"]
    assert len(turns) == 4
    assert float(str(maker.budgets[0])[:-1]) < 26
    assert found.decisions[1].stage == "bf16"  # the most per second is expected of it


def test_a_precision_is_expected_to_gain_on_what_stands() -> None:
    """bf16 doubled the speed; int8, which takes its place, would be twice as fast as that."""
    budget = Budgeting(Options(steering=Steering(predict=True)), (), TimeBudget())
    bf16, int8 = (Stage(name, lambda o: o, lossy=True) for name in ("bf16", "int8"))
    tuned = Stage("tuned", lambda o: o, component="neural")
    budget.begin(lambda: FACTS, 1.0)
    before = [budget.predict(each).mean for each in (int8, tuned)]
    assert before[0] == pytest.approx(math.log(4), abs=0.01)
    budget.learn(bf16, math.log(2), 1.0, kept=True)
    after = [budget.predict(each).mean for each in (int8, tuned)]
    assert after == pytest.approx([before[0] - math.log(2), before[1]])
    budget.learn(int8, math.log(1.5), 1.0, kept=False)
    assert budget.learnt[-1].expected == pytest.approx(after[0])
    assert budget.predict(int8).mean == pytest.approx(after[0])
    assert budget.told(Stage("exact", lambda o: o, component="exact")) is None


def test_dynamic_learns_of_tuning_from_turn_to_turn_and_of_others_by_themselves() -> None:
    bandit = Bandit({}, seed=1)
    bandit.offer("neural", Gain(0.0, 0.3), 1.0)
    bandit.offer("bf16", Gain(0.7, 1e-6), 1.0)
    assert bandit.choose(["bf16", "neural"]) == "bf16"
    bandit.learn("bf16", 0.0, 1.0)
    bandit.learn("neural", 0.5, 1.0)
    bandit.offer("neural", Gain(0.0, 0.3), 1.0)  # what was learnt stays
    assert bandit.arms["neural"].gain.mean > 0.4
    bandit.offer("int8", Gain(0.9, 1e-6), 1.0)
    assert bandit.choose(["int8", "neural"]) == "int8"
    assert bandit.shares() == {"neural": 1, "bf16": 1, "int8": 0}


def test_intelligent_asks_what_was_learnt() -> None:
    spent: list[float] = []
    features = FACTS.features()
    for gained in (0.7, -0.5):
        past = [Past("tuned", "a machine", features, 0.03, gained, 1.0)] * 10
        maker = all_better()
        steering = Steering("fusion", mode="intelligent", budget=101.0)
        go(steering, maker, past=past)
        spent.append(float(str(maker.budgets[0])[:-1]) if maker.budgets else 0.0)
    assert spent[0] > 2 * spent[1]


def test_a_budget_ends_with_the_best_so_far() -> None:
    maker = all_better()
    maker.seconds = 10.0
    found = go(Steering("fusion", budget=25.0, components=("precision", "subgraph")), maker)
    assert found.best == Candidate(4, 0.9995)
    told = found.decisions[-1]
    assert told.verdict == "no time"
    assert told.reason == "a stage takes about 10 s, and 5 s of the budget are left"


def test_a_first_stage_that_was_taken_from_before_tells_how_long_stages_take() -> None:
    budget = Budgeting(Options(), (), TimeBudget(10.0, now=Clock()))
    stage = Stage("bf16", lambda o: o, lossy=True)
    budget.begin(lambda: replace(FACTS, seconds=12.0), 0.01)
    assert budget.lacking(stage, [stage]).startswith("a stage takes about 12 s, and 10 s of")
    clock = Clock()
    spent = Budgeting(Options(), (), TimeBudget(10.0, now=clock))
    spent.begin(lambda: FACTS, 1.0)
    clock.seconds = 10.0
    assert spent.lacking(stage, [stage]) == "the budget is used up"


def test_a_budget_that_is_too_short_for_one_stage_is_said_in_one_line() -> None:
    maker = Maker({"exact": OutOfTimeError("the budget of 1 s ends before pass fuse")})
    with pytest.raises(OutOfTimeError, match="it is too short for one stage"):
        go(Steering(budget=1.0), maker, FAST)
    clock = Clock()
    steps = measurement.Clock(lambda _: None, TimeBudget(2.0, now=clock))
    with steps.stage("build"):
        clock.seconds = 2.0
    with pytest.raises(OutOfTimeError, match="the budget of 2 s ends before the step 'build'"):
        steps.stage("build").__enter__()


def test_a_budget_that_ends_before_the_first_stage_is_said_in_one_line(tiny_model: Path) -> None:
    """While the reference answers no stage has begun."""
    options = Options(steering=Steering(budget=1e-6))
    told = "the budget of 1 us ends before the step 'reference': it is too short for one stage"
    with pytest.raises(OutOfTimeError, match=told):
        driver.compile_model(frontend.load(tiny_model), options)


def test_what_was_kept_is_delivered_when_no_time_is_left_for_a_profile(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The budget ends with the last stage."""
    spent: list[None] = []
    monkeypatch.setattr(TimeBudget, "left", property(lambda _: 0.0 if spent else 60.0))
    really = cascade.run

    def run(*given: Any) -> Any:
        found = really(*given)
        spent.append(None)
        return found

    monkeypatch.setattr(cascade, "run", run)
    steering = Steering(budget=60.0, profile=True)
    report = driver.compile_source(tiny_model, Options(steering=steering)).report
    assert report.profile is None
    assert report.notes[-1] == "kernels were not timed for the profile: the budget is used up"


def test_contributions_are_shares_of_the_log_speedup() -> None:
    weights = {"neural": 1.0, "precision": 3.0}
    steering = Steering("fusion", components=("neural", "precision"), weights=weights)
    hybrid = go(steering, all_better()).hybrid
    neural, precision = hybrid.components
    total = math.log(8 / 3.5)
    assert neural.contribution == pytest.approx(math.log(8 / 7) / total)
    assert precision.contribution == pytest.approx(math.log(7 / 3.5) / total)
    assert precision.speedup == pytest.approx(2.0)
    told = hybrid.to_json()
    efficiency = 0.25 * told["contributions"]["neural"] + 0.75 * told["contributions"]["precision"]
    assert told["hybrid_efficiency"] == pytest.approx(efficiency)
    assert told["fusion_score"] == 1.0
    assert [each["component"] for each in told["component_results"]] == ["neural", "precision"]
    assert "2.29 times as fast as exact: neural 16%, precision 84%" in hybrid.text()


def test_what_is_not_installed_gets_no_weight() -> None:
    """The others share the budget, so that all of it goes where the speed comes from."""
    steering = Steering("fusion", mode="quantum", components=("precision",))
    hybrid = go(steering, all_better()).hybrid
    assert {each.component: each.weight for each in hybrid.components} == {
        "precision": 1.0,
        "quantum": 0.0,
    }
    assert hybrid.efficiency == 1.0


def test_the_report_and_its_text_tell_one_score() -> None:
    """Also where the contract was kept before the last component was needed."""
    found = go(Steering(), Maker({"exact": Candidate(8), "tuned": Candidate(4)}), FAST)
    assert [each.verdict for each in found.hybrid.components] == ["kept", "not needed"]
    assert found.hybrid.lasting().to_json()["fusion_score"] == 0.5
    assert "fusion score 0.50" in found.hybrid.text()


def test_the_fusion_score_counts_what_succeeded_of_what_is_enabled() -> None:
    maker = all_better()
    maker.found["tuned"] = PassError("no")
    components = ("neural", "precision", "quantum", "subgraph")
    found = go(Steering("fusion", components=components), maker)
    assert found.hybrid.fusion_score == 0.5
    assert {each.component: each.verdict for each in found.hybrid.components} == {
        "neural": "failed",
        "precision": "kept",
        "quantum": "not installed",
        "subgraph": "rolled back",
    }
