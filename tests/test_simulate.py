"""Recorded sweeps replayed: what is saved is read again, what is broken is said in a line."""

import itertools
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hybridc.compiler import strategies
from hybridc.compiler.errors import InputError
from hybridc.compiler.interfaces import Trial
from hybridc.compiler.tuning import cost_model, simulate
from hybridc.compiler.tuning.features import COLUMNS
from hybridc.compiler.tuning.simulate import Sweep

SPACE = {"rows": (1, 2, 4, 8), "vectors": (1, 2, 3, 4), "chunk": (1, 7, 14)}


def made(best_rows: int = 4, name: str = "a kernel") -> Sweep:
    """A kernel that likes some rows, few vectors, and does not see its last knob's first two."""
    points = [
        dict(zip(SPACE, values, strict=True))
        for values in itertools.product(*SPACE.values())
        if values[2] != 7
    ]
    points.insert(0, points.pop(9))
    seconds = np.asarray(
        [
            1e-4
            * (1 + abs(math.log2(p["rows"] / best_rows)) + 0.3 * p["vectors"] + 0.01 * p["chunk"])
            for p in points
        ]
    )
    seconds[5] = np.nan
    features = np.full((len(points), len(COLUMNS)), np.nan, np.float32)
    for column, knob in enumerate(("rows", "vectors", "chunk")):
        features[:, column] = [p[knob] for p in points]
    features[:, COLUMNS.index("estimate over default")] = [p["vectors"] for p in points]
    merged = [{**p, "chunk": 1 if p["chunk"] == 7 else p["chunk"]} for p in _every()]
    rows = np.asarray([points.index(p) for p in merged])
    return Sweep(name, "dense", SPACE, points[0], tuple(points), rows, seconds, features)


def _every() -> list[dict[str, int]]:
    return [dict(zip(SPACE, values, strict=True)) for values in itertools.product(*SPACE.values())]


def test_what_is_saved_is_read_again(tmp_path: Path) -> None:
    kernel = made()
    simulate.save(tmp_path / "s.npz", [kernel, made(name="another")], {"processor": "some CPU"})
    first, second = simulate.load(tmp_path / "s.npz")
    assert (first.name, first.rule, second.name) == ("a kernel", "dense", "another")
    assert (first.space, first.default, first.points) == (SPACE, kernel.default, kernel.points)
    np.testing.assert_array_equal(first.rows, kernel.rows)
    np.testing.assert_allclose(first.seconds, kernel.seconds, rtol=1e-6)
    np.testing.assert_allclose(first.features, kernel.features, rtol=1e-3)
    assert simulate.about(tmp_path / "s.npz") == {"processor": "some CPU"}


def test_features_of_another_version_are_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate.save(tmp_path / "s.npz", [made()], {})
    monkeypatch.setattr(simulate, "COLUMNS", (*COLUMNS, "one more"))
    (kernel,) = simulate.load(tmp_path / "s.npz")
    assert np.isnan(kernel.features).all()
    assert np.isfinite(kernel.seconds).any()


@pytest.mark.parametrize("content", [b"", b"garbage", b"PK\x03\x04 torn"])
def test_a_file_that_is_no_sweep_is_said_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.npz").write_bytes(content)
    with pytest.raises(InputError, match=r"s\.npz: not a recorded sweep") as caught:
        simulate.load(tmp_path / "s.npz")
    assert "\n" not in str(caught.value)


def test_a_torn_sweep_and_a_missing_one_are_said_in_a_line(tmp_path: Path) -> None:
    simulate.save(tmp_path / "s.npz", [made()], {})
    whole = (tmp_path / "s.npz").read_bytes()
    (tmp_path / "s.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a recorded sweep"):
        simulate.load(tmp_path / "s.npz")
    with pytest.raises(InputError, match="No such file"):
        simulate.load(tmp_path / "none.npz")


def test_points_with_one_schedule_have_one_time_and_are_tried_once() -> None:
    kernel = made()
    assert (
        kernel.trial({"rows": 4, "vectors": 2, "chunk": 7}).cost
        == kernel.trial({"rows": 4, "vectors": 2, "chunk": 1}).cost
    )
    history = simulate.replay(kernel, strategies.catalogue().create("random"), 1000)
    assert len(history) == len(kernel.points)
    assert sum(trial.seconds is None for trial in history) == 1


def test_a_replay_starts_with_the_default_and_finds_the_best() -> None:
    kernel = made()
    history = simulate.replay(kernel, strategies.catalogue().create("genetic"), 32)
    assert history[0] == kernel.trial(kernel.default)
    needed = simulate.trials_to(history, kernel)
    assert needed is not None
    assert min(t.cost for t in history[:needed]) <= 1.02 * kernel.best
    assert min(t.cost for t in history[: needed - 1]) > 1.02 * kernel.best
    assert simulate.trials_to([Trial(kernel.default)], kernel) is None


def test_a_curve_falls_and_is_filled_up() -> None:
    kernel = made()
    history = simulate.replay(kernel, strategies.catalogue().create("random"), 8)
    curve = simulate.curve(history, kernel, 12)
    assert len(curve) == 12
    assert (np.diff(curve) <= 0).all()
    assert curve[-1] == min(t.cost for t in history) / kernel.best


def test_the_analytic_model_predicts_where_every_point_has_an_estimate() -> None:
    kernel = made()
    score = simulate.analytic(kernel)
    assert score is not None
    assert list(score([kernel.points[0], kernel.points[3]])) == [
        kernel.points[0]["vectors"],
        kernel.points[3]["vectors"],
    ]
    unknown = replace(kernel, features=np.full_like(kernel.features, np.nan))
    assert simulate.analytic(unknown) is None


def test_a_learned_model_leads_the_search() -> None:
    pytest.importorskip("xgboost")
    kernel = made()
    model = cost_model.train([made(4, "other").group], trees=60)
    strategy = strategies.catalogue().create("evolutionary{explore=0}")
    led = simulate.trials_to(simulate.replay(kernel, strategy, 16, model), kernel)
    assert led is not None
    assert led <= 4
    learned = simulate.replay(kernel, strategy, 32, learn=True)
    assert simulate.trials_to(learned, kernel) is not None
    tuned = simulate.replay(kernel, strategy, 24, model, learn=True)
    assert simulate.trials_to(tuned, kernel) is not None


def test_a_log_of_some_points_is_replayed_with_the_others_failing() -> None:
    default: dict[str, int] = {"rows": 2, "vectors": 1}
    trials = [
        Trial(default, 2e-3),
        Trial({"vectors": 2, "rows": 4}, 1e-3),
        Trial({"tile": 8}, 1e-9),
    ]
    kernel = simulate.recorded("k", "dense", default, trials)
    assert kernel.space == {"rows": (2, 4), "vectors": (1, 2)}
    assert kernel.best == 1e-3
    assert kernel.trial({"rows": 4, "vectors": 1}).seconds is None
    found: list[Any] = simulate.replay(kernel, strategies.catalogue().create("random"), 9)
    assert len(found) == 4
    with pytest.raises(InputError, match="no record has the knobs of dense"):
        simulate.recorded("k", "dense", default, trials[2:])
