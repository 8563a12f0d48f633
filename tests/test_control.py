"""Control strategies, modes and budgets, on candidates that are made up."""

import math

import pytest
from made_up import FAST, LOOSE, Candidate, Clock, Maker, go, verdicts

from hybridc.compiler import cascade, controller
from hybridc.compiler.contract import Contract
from hybridc.compiler.errors import InputError, PassError
from hybridc.compiler.gains import Facts, Kernel, Past
from hybridc.compiler.plans import Options
from hybridc.compiler.purse import OutOfTimeError, Purse
from hybridc.compiler.steering import Steering
from hybridc.compiler.tuning.plan import Tuning

pytestmark = pytest.mark.usefixtures("bf16_alone")
EXACT = Candidate(8)


def all_better() -> Maker:
    """Each stage takes something off, and together they take the most."""
    return Maker(
        {
            "exact": EXACT,
            "tuned": Candidate(7),
            "bf16": Candidate(4, 0.9995),
            "bare": Candidate(8.5),
            "tuned+bf16": Candidate(3.5, 0.9995),
            "tuned+bare": Candidate(7.5),
            "bf16+bare": Candidate(4.2),
            "tuned+bf16+bare": Candidate(3.6, 0.9995),
        }
    )


def test_the_strategies_are_those_of_the_folder() -> None:
    known = controller.catalogue().names()
    assert known == ("adaptive", "cascade", "fusion", "hierarchical", "parallel")
    with pytest.raises(InputError, match="did you mean 'fusion'"):
        cascade.strategy(Options(steering=Steering("fusoin")))


def test_fusion_goes_through_all_components_each_on_the_last_ones_result() -> None:
    maker = all_better()
    found = go(Steering("fusion"), maker, FAST)
    assert maker.asked == ["exact", "tuned", "tuned+bf16", "tuned+bf16+bare"]
    assert found.best == Candidate(3.5, 0.9995)
    assert verdicts(found)["no-fuse-attention"] == "rolled back"


def test_cascade_stops_where_fusion_goes_on() -> None:
    maker = all_better()
    maker.found["tuned"] = Candidate(4.5)
    assert verdicts(go(Steering(), maker, FAST))["bf16"] == "not needed"
    assert verdicts(go(Steering("fusion"), all_better(), FAST))["bf16"] == "kept"


def test_parallel_compiles_at_once_measures_in_turn_and_keeps_the_best() -> None:
    maker = all_better()
    found = go(Steering("parallel"), maker)
    assert maker.prepared == [["bf16", "bare"]]  # tuning measures, and so goes alone
    assert maker.asked == ["exact", "tuned", "bf16", "bare"]  # each on the first one's result
    assert found.best == Candidate(4, 0.9995)
    assert verdicts(found) == {
        "exact": "kept",
        "bf16": "kept",
        "tuned": "rolled back",
        "no-fuse-attention": "rolled back",
    }


def test_parallel_passes_over_what_failed_and_what_is_too_inaccurate() -> None:
    maker = all_better()
    maker.found |= {"tuned": PassError("no such luck"), "bf16": Candidate(1, 0.9)}
    found = go(Steering("parallel"), maker)
    assert found.best == EXACT
    assert verdicts(found)["tuned"] == "failed"
    assert "cosine" in {each.stage: each for each in found.decisions}["bf16"].reason


def test_hierarchical_goes_from_the_graph_to_the_kernel() -> None:
    maker = all_better()
    found = go(Steering("hierarchical"), maker)
    assert maker.asked == ["exact", "bf16", "bf16+bare", "tuned+bf16"]
    assert found.best == Candidate(3.5, 0.9995)
    maker = all_better()
    go(Steering("hierarchical", levels=("kernel",)), maker)
    assert maker.asked == ["exact", "tuned"]


def test_the_levels_of_hierarchical_share_the_budget_by_weight() -> None:
    for weight, least, most in ((1.0, 47, 50), (0.1, 7, 9)):
        maker = all_better()
        weights = {"graph": 1.0, "subgraph": 1.0, "kernel": weight}
        steering = Steering(
            "hierarchical", budget=100.0, level_weights=weights, levels=("kernel", "graph")
        )
        go(steering, maker)
        assert least < float(str(maker.budgets[0])[:-1]) < most


def test_adaptive_takes_the_most_promising_first_and_stops_when_enough_is_reached() -> None:
    maker = all_better()
    found = go(Steering("adaptive"), maker, FAST)
    assert maker.asked == ["exact", "bf16"]  # half the time is expected of it
    assert verdicts(found)["tuned"] == "not needed"


def test_adaptive_ends_where_nothing_is_promised() -> None:
    slow = Facts((Kernel(1.0, 1e9),), {"fp32": 1e11, "bf16": 1e11}, 1e11, 0.02, 0.0, "a machine")
    past = [Past("bf16", "a machine", slow.features(), 0.69, -0.1, 1.0)] * 20
    past += [Past("no-fuse-attention", "a machine", slow.features(), 0.0, -0.1, 1.0)] * 20
    maker = all_better()
    found = go(Steering("adaptive"), maker, FAST, facts=slow, past=past)
    assert maker.asked == ["exact"]
    assert verdicts(found)["bf16"] == "not promising"
    assert "± " in found.decisions[-1].reason


def test_adaptive_selection_leaves_out_what_promises_nothing_in_any_strategy() -> None:
    known = Facts((Kernel(2e9, 1e6),), {"fp32": 1e11, "bf16": 2e11}, 1e11, 0.02, 0.0, "a machine")
    past = [Past("tuned", "a machine", known.features(), 0.0, -0.02, 1.0)] * 20
    for adaptive, verdict in ((False, "kept"), (True, "not promising")):
        steering = Steering("fusion", adaptive=adaptive)
        found = go(steering, all_better(), facts=known, past=past)
        assert verdicts(found)["tuned"] == verdict


def test_predictions_are_told_where_they_are_asked_for() -> None:
    plain = go(Steering(), all_better(), FAST)
    assert all(each.predicted is None for each in plain.decisions)
    told = {d.stage: d for d in go(Steering(predict=True), all_better(), FAST).decisions}["bf16"]
    assert told.predicted is not None
    assert told.predicted["log_speedup"] == pytest.approx(math.log(2), abs=0.01)


def test_the_order_and_the_threshold_are_the_users() -> None:
    maker = all_better()
    go(Steering("fusion", order=("precision", "tuned")), maker)
    assert maker.asked[:3] == ["exact", "bf16", "tuned+bf16"]
    found = go(Steering("fusion", threshold=0.2), all_better())
    assert verdicts(found)["tuned"] == "rolled back"  # an eighth is less than a fifth
    assert "0.2 less is asked for" in found.decisions[1].reason
    with pytest.raises(InputError, match="did you mean 'bf16'"):
        go(Steering("fusion", order=("bf15",)), all_better())


def test_only_the_components_that_are_enabled_are_used() -> None:
    maker = all_better()
    found = go(Steering("fusion", components=("precision",)), maker)
    assert maker.asked == ["exact", "bf16"]
    assert [each.component for each in found.hybrid.components] == ["precision"]


def test_what_is_not_installed_is_told_and_skipped_or_refused() -> None:
    for steering in (
        Steering(components=("precision", "quantum")),
        Steering(mode="quantum"),
    ):
        found = go(steering, all_better(), FAST)
        assert verdicts(found)["quantum"] == "not installed"
        assert found.best == Candidate(4, 0.9995) or found.best == Candidate(3.5, 0.9995)
    with pytest.raises(InputError, match="superopt is not part of this version"):
        go(Steering(components=("superopt",), strict=True), all_better())
    found = go(Steering(components=("neural",)), all_better(), FAST, tuning=None)
    assert verdicts(found)["neural"] == "not applicable"


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


def test_intelligent_asks_what_was_learnt() -> None:
    spent: list[float] = []
    features = (*go_facts().features(),)
    for gained in (0.7, -0.5):
        past = [Past("tuned", "a machine", features, 0.03, gained, 1.0)] * 10
        maker = all_better()
        steering = Steering("fusion", mode="intelligent", budget=101.0)
        go(steering, maker, past=past)
        spent.append(float(str(maker.budgets[0])[:-1]) if maker.budgets else 0.0)
    assert spent[0] > 2 * spent[1]


def go_facts() -> Facts:
    return Facts((Kernel(2e9, 1e6, "conv2d"),), {}, 0.0, machine="a machine")


def test_a_budget_ends_with_the_best_so_far() -> None:
    maker = all_better()
    maker.seconds = 10.0
    found = go(Steering("fusion", budget=25.0, components=("precision", "subgraph")), maker)
    assert found.best == Candidate(4, 0.9995)
    told = found.decisions[-1]
    assert told.verdict == "no time"
    assert told.reason == "a stage takes about 10 s, and 5 s of the budget are left"


def test_a_budget_that_is_too_short_for_one_stage_is_said_in_one_line() -> None:
    maker = Maker({"exact": OutOfTimeError("the budget of 1 s ends before pass fuse")})
    with pytest.raises(OutOfTimeError, match="it is too short for one stage"):
        go(Steering(budget=1.0), maker, FAST)
    clock = Clock()
    purse = Purse(2.0, now=clock)
    purse.check("build")
    clock.seconds = 2.0
    with pytest.raises(OutOfTimeError, match="the budget of 2 s ends before build"):
        purse.check("build")


@pytest.mark.parametrize(
    "fault",
    [ImportError("No module named 'xgboost'"), MemoryError(), PassError("its process died")],
)
def test_a_stage_that_fails_by_whatever_is_told_and_skipped_or_with_strict_raised(
    fault: Exception,
) -> None:
    for strategy in controller.catalogue().names():
        maker = all_better()
        maker.found["tuned"] = maker.found["tuned+bf16"] = fault
        found = go(Steering(strategy, predict=True), maker, FAST)
        assert found.best == Candidate(4, 0.9995), strategy
        if "tuned" in maker.asked:
            assert verdicts(found)["tuned"] == "failed"
    maker = all_better()
    maker.found["tuned"] = fault
    with pytest.raises(type(fault)):
        go(Steering(strict=True), maker, FAST)


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


def test_nothing_is_timed_for_a_cascade_without_limits() -> None:
    maker = Maker({"exact": EXACT, "tuned": EXACT})
    found = go(Steering(), maker, Contract(), tuning=None)
    assert maker.asked == ["exact"]
    assert found.hybrid.fusion_score is None
    assert found.hybrid.text() == ""
    assert not cascade.several(Options(contract=LOOSE, tuning=Tuning()))
    assert cascade.several(Options(contract=LOOSE, steering=Steering("fusion")))
