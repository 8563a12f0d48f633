"""Control strategies, modes and budgets, on candidates that are made up."""

import math
from dataclasses import replace

import pytest
from made_up import FACTS, FAST, LOOSE, Candidate, Maker, all_better, go, verdicts

from hybridc.compiler.anatomy.work import ELEMENTWISE, Operator
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError, PassError
from hybridc.compiler.orchestration import cascade, controller
from hybridc.compiler.orchestration.candidates import Means
from hybridc.compiler.orchestration.expected_gains.gains import Facts
from hybridc.compiler.orchestration.expected_gains.history import Past
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.tuning.options import Tuning

pytestmark = pytest.mark.usefixtures("bf16_alone")
EXACT = Candidate(8)


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


def test_adaptive_takes_the_most_promising_first_and_stops_when_enough_is_reached() -> None:
    maker = all_better()
    found = go(Steering("adaptive"), maker, FAST)
    assert maker.asked == ["exact", "bf16"]  # half the time is expected of it
    assert verdicts(found)["tuned"] == "not needed"


def test_adaptive_ends_where_nothing_is_promised() -> None:
    sums = Operator("add", ELEMENTWISE, 1.0, 0, 1e9, 1e9)
    slow = replace(FACTS, operators=(sums,), unknown=0.0)
    past = [Past("bf16", "a machine", slow.features(), 0.69, -0.1, 1.0)] * 20
    past += [Past("no-fuse-attention", "a machine", slow.features(), 0.0, -0.1, 1.0)] * 20
    maker = all_better()
    found = go(Steering("adaptive"), maker, FAST, facts=slow, past=past)
    assert maker.asked == ["exact"]
    assert verdicts(found)["bf16"] == "not promising"
    assert "times as fast (" in found.decisions[-1].reason


def test_adaptive_selection_leaves_out_what_promises_nothing_in_any_strategy() -> None:
    known = replace(FACTS, unknown=0.0)
    past = [Past("tuned", "a machine", known.features(), 0.0, -0.02, 1.0)] * 20
    for adaptive, verdict in ((False, "kept"), (True, "not promising")):
        steering = Steering("fusion", adaptive=adaptive)
        found = go(steering, all_better(), facts=known, past=past)
        assert verdicts(found)["tuned"] == verdict


def test_a_model_is_analysed_only_where_something_is_decided_by_it() -> None:
    asked: list[Candidate] = []

    def facts(found: Candidate) -> Facts:
        asked.append(found)
        return FACTS

    def run(contract: Contract, steering: Steering = Steering()) -> int:  # noqa: B008 - frozen
        asked.clear()
        means = Means(all_better().attempt, facts=facts)
        cascade.run(Options(contract=contract, steering=steering), means)
        return len(asked)

    assert run(Contract()) == 0
    assert run(Contract("9ms", min_accuracy={"cosine": 0.999})) == 0  # the first stage keeps it
    assert run(FAST) == 1
    assert run(Contract("9ms", min_accuracy={"cosine": 0.999}), Steering(predict=True)) == 1


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
    with pytest.raises(InputError, match="superopt: it is not part of this version"):
        go(Steering(components=("superopt",), strict=True), all_better())
    found = go(Steering(components=("neural",)), all_better(), FAST, tuning=None)
    assert verdicts(found)["neural"] == "not applicable"


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
    with pytest.raises(type(fault)) as raised:
        go(Steering(strict=True), maker, FAST)
    if isinstance(fault, PassError):
        assert str(raised.value) == "stage tuned: its process died"


def test_nothing_is_timed_for_a_cascade_without_limits() -> None:
    maker = Maker({"exact": EXACT, "tuned": EXACT})
    found = go(Steering(), maker, Contract(), tuning=None)
    assert maker.asked == ["exact"]
    assert found.hybrid.fusion_score is None
    assert found.hybrid.text() == ""
    assert not cascade.several(Options(contract=LOOSE, tuning=Tuning()))
    assert cascade.several(Options(contract=LOOSE, steering=Steering("fusion")))
