"""What every search strategy keeps; a new one inherits these tests by existing.

One in a file of its own is tested by `pytest tests/test_strategies.py --plugin FILE`.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import plugged
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridc.compiler import plugin
from hybridc.compiler.errors import PluginError
from hybridc.compiler.interfaces import Point, SearchTask, Strategy, Trial
from hybridc.compiler.tuning import strategies

CATALOGUE = strategies.catalogue(plugged.FILES)
NAMES = plugged.under_test(CATALOGUE.names())
SPACE = {
    "rows": (1, 2, 3, 4, 6, 8, 12),
    "vectors": (1, 2, 4),
    "chunk": (1, 7, 14),
    "staged": (0, 1),
}
TASK = SearchTask(SPACE, {"rows": 4, "vectors": 2, "chunk": 1, "staged": 0})


def seconds(point: Point) -> float:
    """A valley away from the default, with a step where registers would spill."""
    spill = 3.0 if point["rows"] * point["vectors"] > 24 else 1.0
    far = abs(math.log2(point["rows"] / 12)) + abs(math.log2(point["chunk"] / 7))
    return 1e-3 * spill * (1 + far + (2 - point["vectors"]) ** 2 / 4 + 0.3 * (1 - point["staged"]))


def tried(points: Sequence[Point], failing: int = 0) -> list[Trial]:
    """Trials of points; one in `failing` failed."""
    return [
        Trial(point, None if failing and i % failing == failing - 1 else seconds(point))
        for i, point in enumerate(points)
    ]


def search(strategy: Strategy, task: SearchTask, trials: int, batch: int = 6) -> list[Trial]:
    history: list[Trial] = []
    while len(history) < trials:
        proposed = strategy.propose(task, history, min(batch, trials - len(history)))
        if not proposed:
            break
        history += tried(proposed)
    return history


def made(name: str, seed: int = 0) -> Strategy:
    return replace(CATALOGUE.create(name), seed=seed)


each_strategy = pytest.mark.parametrize("name", NAMES)


@each_strategy
def test_a_strategy_is_a_frozen_dataclass_with_help(name: str) -> None:
    kind = CATALOGUE.load(name)
    assert vars(kind)["__dataclass_params__"].frozen
    first = (vars(kind)["__doc__"] or "").split("\n")[0]
    assert first.endswith(".")
    assert not first.startswith(f"{kind.__name__}(")


@each_strategy
def test_the_default_comes_first(name: str) -> None:
    assert made(name).propose(TASK, [], 1) == (TASK.default,)


@each_strategy
def test_hints_come_next(name: str) -> None:
    hint = {"rows": 12, "vectors": 2, "chunk": 7, "staged": 1}
    foreign = {**hint, "chunk": 5}
    task = replace(TASK, hints=(foreign, hint, TASK.default))
    assert made(name).propose(task, [], 2) == (TASK.default, hint)


@each_strategy
def test_nothing_is_proposed_twice_or_outside_until_the_space_is_exhausted(name: str) -> None:
    task = SearchTask(
        {"rows": (1, 2, 4), "vectors": (1, 2, 3), "one": (5,), "staged": (0, 1)},
        {"rows": 2, "vectors": 1, "one": 5, "staged": 0},
    )
    strategy = made(name)
    history: list[Trial] = []
    while points := strategy.propose(task, history, 7):
        assert len(points) <= 7
        assert all(task.contains(point) for point in points)
        history += [Trial(point, 1e-3 * (1 + i)) for i, point in enumerate(points)]
    assert len({task.key(trial.point) for trial in history}) == len(history) == task.size


@each_strategy
def test_points_with_the_same_schedule_are_one(name: str) -> None:
    task = replace(TASK, canonical=lambda point: {**point, "staged": 0, "chunk": 1})
    history = search(made(name), task, 1000)
    assert len(history) == len(SPACE["rows"]) * len(SPACE["vectors"])


@each_strategy
def test_the_history_and_the_seed_decide(name: str) -> None:
    history = search(made(name, 3), TASK, 20)
    assert search(made(name, 3), TASK, 20) == history
    assert made(name, 3).propose(TASK, history[:13], 5) == made(name, 3).propose(
        TASK, list(history[:13]), 5
    )


@each_strategy
def test_another_seed_searches_elsewhere(name: str) -> None:
    assert any(
        search(made(name, seed), TASK, 30) != search(made(name), TASK, 30) for seed in (1, 2)
    )


@each_strategy
@pytest.mark.parametrize("seed", [-1, 2**40])
def test_any_whole_number_is_a_seed(name: str, seed: int) -> None:
    history = search(made(name, seed), TASK, 10)
    assert len(history) == 10
    assert search(made(name, seed), TASK, 10) == history


@each_strategy
def test_nothing_is_proposed_for_no_budget(name: str) -> None:
    history = tried([TASK.default])
    assert made(name).propose(TASK, history, 0) == ()
    assert made(name).propose(TASK, history, -1) == ()


@each_strategy
@pytest.mark.parametrize("failing", [1, 2])
def test_failures_are_survived(name: str, failing: int) -> None:
    history: list[Trial] = []
    for _ in range(5):
        points = made(name).propose(TASK, history, 6)
        assert points
        history = tried([*(trial.point for trial in history), *points], failing)


@each_strategy
def test_trials_outside_the_space_do_not_disturb(name: str) -> None:
    foreign = [Trial({"rows": 5}, 1e-9), Trial({**TASK.default, "vectors": 99}, 1e-9)]
    history = foreign + tried(made(name).propose(TASK, foreign, 8))
    assert history[2].point == TASK.default
    assert made(name).propose(TASK, history, 4)


@each_strategy
def test_a_space_of_one_point_is_searched(name: str) -> None:
    task = SearchTask({"threads": (1,)}, {"threads": 1})
    assert made(name).propose(task, [], 3) == ({"threads": 1},)
    assert made(name).propose(task, [Trial({"threads": 1}, 1.0)], 3) == ()


@each_strategy
def test_a_good_point_is_found(name: str) -> None:
    """Half of the space suffices to come within 30 % of its best."""
    best = min(seconds(TASK.point(i)) for i in range(TASK.size))
    found = min(trial.cost for trial in search(made(name), TASK, TASK.size // 2))
    assert found <= 1.3 * best


@each_strategy
def test_the_text_of_a_strategy_builds_it_again(name: str) -> None:
    strategy = made(name, 7)
    assert CATALOGUE.create(plugin.text(strategy)) == strategy


@each_strategy
def test_a_wrong_option_is_said_in_one_line(name: str) -> None:
    with pytest.raises(PluginError, match=f"{name} has no option 'sed'; did you mean 'seed'"):
        CATALOGUE.create(f"{name}{{sed=1}}")
    for option, kind, default in plugin.options(CATALOGUE.load(name)):
        if option == "seed" or kind not in ("int", "float"):
            continue
        assert isinstance(default, int | float)
        with pytest.raises(PluginError, match=f"{name}: .*, got -7") as caught:
            CATALOGUE.create(f"{name}{{{option}=-7}}")
        assert "\n" not in str(caught.value)


def test_an_unknown_strategy_is_said_with_the_nearest_name() -> None:
    with pytest.raises(PluginError, match="no strategy is named 'evolutionry'; did you mean 'evol"):
        CATALOGUE.create("evolutionry")


def test_a_predictor_leads_the_evolution() -> None:
    task = replace(TASK, score=lambda points: [seconds(point) for point in points])
    for options in ("{explore=0}", "{explore=0 population=20 generations=6}"):
        strategy = CATALOGUE.create(f"evolutionary{options}")
        found = tried(strategy.propose(task, tried([TASK.default]), 4))
        assert min(trial.cost for trial in found) <= 1.1 * min(
            seconds(TASK.point(i)) for i in range(TASK.size)
        )


@st.composite
def tasks(draw: Any) -> SearchTask:
    knobs = draw(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=5, unique=True))
    values = (
        st.lists(st.integers(0, 99), min_size=1, max_size=6, unique=True).map(sorted).map(tuple)
    )
    space = {knob: draw(values) for knob in knobs}
    return SearchTask(space, {knob: draw(st.sampled_from(space[knob])) for knob in knobs})


@settings(max_examples=60, deadline=None)
@given(task=tasks(), seed=st.integers(0, 9))
def test_points_of_a_space_are_numbered_and_shuffled_whole(task: SearchTask, seed: int) -> None:
    from random import Random

    numbered = {task.key(task.point(i)) for i in range(task.size)}
    shuffled = [task.key(point) for point in task.shuffled(Random(seed))]
    assert len(shuffled) == task.size
    assert set(shuffled) == numbered


@each_strategy
@settings(max_examples=5, deadline=None)
@given(task=tasks(), budget=st.integers(1, 12))
def test_any_space_is_searched(name: str, task: SearchTask, budget: int) -> None:
    history: list[Trial] = []
    for _ in range(3):
        points = made(name).propose(task, history, budget)
        assert all(task.contains(point) for point in points)
        history += [Trial(point, 1e-3 + 1e-5 * sum(point.values())) for point in points]
    assert len({task.key(trial.point) for trial in history}) == len(history)
