"""The cost model ranks, is kept in one file, knows what it does not know; features are whole."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kernel_builders import PACKED, constant, floats, op, operator
from scipy.stats import kendalltau

from hybridc.compiler import pipeline, target
from hybridc.compiler.errors import InputError
from hybridc.compiler.interfaces import NotApplicable
from hybridc.compiler.tuning.prediction import cost_model, features
from hybridc.compiler.tuning.prediction.cost_model import CostModel, Group
from hybridc.compiler.tuning.prediction.features import COLUMNS, Features, Similar

pytest.importorskip("xgboost")


def group(seed: int, count: int = 80, scale: float = 1.0) -> Group:
    """Points whose time depends on three columns."""
    draw = np.random.default_rng(seed)
    table = draw.uniform(0, 4, (count, len(COLUMNS))).astype(np.float32)
    seconds = scale * 1e-4 * (1 + (table[:, 0] - 2) ** 2 + table[:, 1] + 0.5 * table[:, 2])
    return Group(table, seconds.astype(np.float64))


@pytest.fixture(scope="module")
def model() -> CostModel:
    return cost_model.train([group(seed, scale=10.0**seed) for seed in range(4)], trees=80)


def test_kernels_that_were_not_seen_are_ranked(model: CostModel) -> None:
    unseen = group(9)
    assert cost_model.kendall(model.predict(unseen.features), unseen.seconds) > 0.6


def test_training_gives_the_same_model_again(model: CostModel) -> None:
    again = cost_model.train([group(seed, scale=10.0**seed) for seed in range(4)], trees=80)
    table = group(9).features
    np.testing.assert_array_equal(again.predict(table), model.predict(table))


def test_a_model_is_one_file_that_is_read_again(model: CostModel, tmp_path: Path) -> None:
    model.save(tmp_path / "m.ubj")
    again = cost_model.load(tmp_path / "m.ubj")
    table = group(9).features
    np.testing.assert_array_equal(again.predict(table), model.predict(table))
    assert again.knows(table)
    np.testing.assert_array_equal(again.low, model.low)


@pytest.mark.parametrize("content", [b"", b"garbage", b"{}", b"x" * 100])
def test_a_file_that_is_no_model_is_said_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.ubj").write_bytes(content)
    with pytest.raises(InputError, match=r"cost model .*m\.ubj: ") as caught:
        cost_model.load(tmp_path / "m.ubj")
    assert "\n" not in str(caught.value)


def test_a_torn_or_altered_model_is_said_in_a_line(model: CostModel, tmp_path: Path) -> None:
    model.save(tmp_path / "m.ubj")
    whole = (tmp_path / "m.ubj").read_bytes()
    for broken in (whole[:-1], whole[: len(whole) // 2], whole[:99] + b"?" + whole[100:]):
        (tmp_path / "m.ubj").write_bytes(broken)
        with pytest.raises(InputError, match="damaged, or not a cost model"):
            cost_model.load(tmp_path / "m.ubj")


def test_a_missing_model_and_one_of_other_features_are_said_in_a_line(
    model: CostModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="No such file"):
        cost_model.load(tmp_path / "none.ubj")
    model.save(tmp_path / "m.ubj")
    monkeypatch.setattr(cost_model, "COLUMNS", (*COLUMNS, "one more"))
    with pytest.raises(InputError, match="trained on other features"):
        cost_model.load(tmp_path / "m.ubj")


def test_missing_xgboost_is_said_with_the_way_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "xgboost", None)
    with pytest.raises(InputError, match=r"pip install 'hybridc\[tune\]'"):
        cost_model.load(cost_model.OTHERS)


def test_a_machine_has_the_model_of_its_kind() -> None:
    cpu = target.parse("avx512", threads=2)
    for units, file in ((1.0, cost_model.OTHERS), (2.0, cost_model.TWO_UNITS)):
        facts = replace(cpu.machine, fma_per_cycle=units)
        assert cost_model.pretrained(replace(cpu, machine=facts)) == file
    assert cost_model.pretrained(target.parse("avx2")) == cost_model.OTHERS


def test_features_outside_what_was_learned_are_foreign(model: CostModel) -> None:
    table = group(9).features
    assert model.knows(table)
    assert not model.knows(table + 10)
    empty = np.where(np.arange(len(COLUMNS)) < 40, np.nan, table).astype(np.float32)
    sparse = cost_model.train([Group(empty, group(9).seconds)], trees=5)
    assert sparse.knows(empty)
    assert not sparse.knows(table)


def test_failures_do_not_disturb() -> None:
    failing = group(3)
    failing.seconds[::2] = np.nan
    assert failing.slowdown[::2].min() > failing.slowdown[1::2].max()
    assert failing.weight[::2].max() < failing.weight[1::2].min()
    learned = cost_model.train([failing], trees=20).predict(failing.features)
    assert learned[::2].mean() > learned[1::2].mean()
    with pytest.raises(InputError, match="at least one kernel"):
        cost_model.train([Group(failing.features[:4], np.full(4, np.nan))])


@pytest.mark.parametrize("seed", range(6))
def test_kendall_agrees_with_scipy(seed: int) -> None:
    draw = np.random.default_rng(seed)
    one, other = draw.integers(0, 6, 30).astype(float), draw.integers(0, 9, 30).astype(float)
    assert cost_model.kendall(one, other) == pytest.approx(kendalltau(one, other).statistic)
    one[3] = np.nan
    other[5] = np.inf
    kept = [i for i in range(30) if i not in (3, 5)]
    wanted = kendalltau(one[kept], other[kept]).statistic
    assert cost_model.kendall(one, other) == pytest.approx(wanted)
    assert np.isnan(cost_model.kendall([1.0], [2.0]))
    assert np.isnan(cost_model.kendall([1.0, 1.0], [2.0, 3.0]))


def _features(builder: Any, rule_name: str) -> Features:
    cpu = target.parse("avx2", threads=2)
    for func in builder(cpu):
        for rule in pipeline.rules():
            match: Any = rule.match(func, cpu)
            if not isinstance(match, NotApplicable):
                if type(rule).__name__ == rule_name:
                    return Features(func, rule, match, cpu)
                break
    raise AssertionError(f"{rule_name} takes no kernel")


@pytest.mark.parametrize(
    ("rule", "builder"),
    [
        (
            "Dense",
            operator(lambda x: op.matmul(x, constant(64, 48)), *floats([33, 64]), passes=PACKED),
        ),
        ("Softmax", operator(lambda x: op.nn.softmax(x, -1), *floats([12, 77]))),
    ],
)
def test_features_tell_points_apart(rule: str, builder: Any) -> None:
    made = _features(builder, rule)
    space = made.rule.knobs(made.match)
    points = [{knob: values[i % len(values)] for knob, values in space.items()} for i in range(3)]
    table = made.of(points)
    assert table.shape == (3, len(COLUMNS))
    figures = {COLUMNS[i] for i in range(features.PLAIN) if np.isfinite(table[:, i]).all()}
    assert {"task work", "tasks per thread", "in flight", "flops"} <= figures
    np.testing.assert_array_equal(
        made.plain(points)[:, : features.PLAIN - 1], table[:, : features.PLAIN - 1]
    )
    assert np.isfinite(table[:, features.PLAIN :]).any(axis=1).all()
    assert not np.array_equal(table[0], table[1], equal_nan=True)
    np.testing.assert_array_equal(made.of(points), table)
    np.testing.assert_array_equal(_features(builder, rule).of(points), table)


def test_hints_come_from_the_nearest_kernels_of_the_same_rule() -> None:
    space = {"rows": (1, 2, 4, 8), "chunk": (1, 5, 25)}
    here = (20.0, 16.0, 12.0, 2.0, 16.0)
    known = [
        Similar("dense", (20.5, 16.0, 12.0, 2.0, 16.0), {"rows": 7, "chunk": 30}),
        Similar("dense", (20.1, 16.0, 12.0, 2.0, 16.0), {"rows": 4, "chunk": 1}),
        Similar("dense", (20.2, 16.0, 12.0, 2.0, 16.0), {"rows": 4, "chunk": 1}),
        Similar("dense", (20.0, 16.0, 12.0, 8.0, 16.0), {"rows": 1, "chunk": 5}),  # 8 threads
        Similar("dense", (30.0, 16.0, 12.0, 2.0, 16.0), {"rows": 1, "chunk": 5}),  # too large
        Similar("conv2d", here, {"rows": 1, "chunk": 5}),
        Similar("dense", here, {"rows": 1}),  # other knobs
    ]
    assert features.hints("dense", here, known, space) == (
        {"rows": 4, "chunk": 1},
        {"rows": 8, "chunk": 25},
    )
