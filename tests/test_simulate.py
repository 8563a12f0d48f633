"""Recorded sweeps replayed: what is saved is read again, what is broken is said in a line."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import log_records
import numpy as np
import pytest

from hybridc.cli import main as entry
from hybridc.compiler.errors import InputError
from hybridc.compiler.interfaces import Trial
from hybridc.compiler.log import access
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.tuning import strategies
from hybridc.compiler.tuning.prediction import cost_model
from hybridc.compiler.tuning.prediction.features import COLUMNS
from hybridc.compiler.tuning.simulation import simulate
from hybridc.compiler.tuning.simulation.simulate import Sweep

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


def test_features_of_another_version_are_taken_by_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = made()
    simulate.save(tmp_path / "s.npz", [before], {})
    monkeypatch.setattr(simulate, "COLUMNS", ("one more", *COLUMNS[::-1][:-1]))
    (kernel,) = simulate.load(tmp_path / "s.npz")
    assert np.isnan(kernel.features[:, 0]).all()
    np.testing.assert_allclose(kernel.features[:, 1:], before.features[:, :0:-1], rtol=1e-3)
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
    assert min(t.cost for t in history[: 1 + needed]) <= 1.02 * kernel.best
    assert min(t.cost for t in history[:needed]) > 1.02 * kernel.best
    assert simulate.trials_to([Trial(kernel.default)], kernel) is None
    assert simulate.trials_to([Trial(kernel.default, kernel.best)], kernel) == 0
    assert len(simulate.replay(kernel, strategies.catalogue().create("genetic"), 0)) == 1


@pytest.mark.parametrize("name", ["genetic", "evolutionary", "fmqa"])
def test_a_replay_that_ends_at_the_best_tells_the_same(name: str) -> None:
    kernel, strategy = made(), strategies.catalogue().create(name)
    whole = simulate.replay(kernel, strategy, 40, learn=True)
    short = simulate.replay(kernel, strategy, 40, learn=True, to_best=True)
    assert len(short) < len(whole)
    assert short == whole[: len(short)]
    assert simulate.trials_to(short, kernel) == simulate.trials_to(whole, kernel)
    told = simulate.curve(short, kernel, 40)
    np.testing.assert_array_equal(told, simulate.curve(whole, kernel, 40))


def test_a_curve_falls_and_is_filled_up() -> None:
    kernel = made()
    history = simulate.replay(kernel, strategies.catalogue().create("random"), 8)
    curve = simulate.curve(history, kernel, 12)
    assert len(history) == 1 + 8  # trials follow the default
    assert len(curve) == 1 + 12
    assert curve[0] == kernel.trial(kernel.default).cost / kernel.best
    assert (np.diff(curve) <= 0).all()
    assert curve[-1] == min(t.cost for t in history) / kernel.best


def test_the_analytic_model_predicts_where_every_point_has_an_estimate() -> None:
    kernel = made()
    expected = simulate.estimated(kernel)
    assert expected is not None
    assert list(expected) == [point["vectors"] for point in kernel.points]
    unknown = replace(kernel, features=np.full_like(kernel.features, np.nan))
    assert simulate.estimated(unknown) is None


def test_a_learned_model_leads_the_search() -> None:
    pytest.importorskip("xgboost")
    kernel = made()
    model = cost_model.train([made(4, "other").group], trees=60)
    expected = model.predict(kernel.features)
    strategy = strategies.catalogue().create("evolutionary{explore=0}")
    led = simulate.trials_to(simulate.replay(kernel, strategy, 16, expected), kernel)
    assert led is not None
    assert led <= 4
    learned = simulate.replay(kernel, strategy, 32, learn=True)
    assert simulate.trials_to(learned, kernel) is not None
    noise = np.random.default_rng(0).normal(0, 0.5, len(expected))
    wrong = simulate.replay(kernel, strategy, 24, noise, learn=True)
    assert simulate.trials_to(wrong, kernel) is not None


def test_a_log_of_some_points_is_replayed_by_the_nearest_ones() -> None:
    default: dict[str, int] = {"rows": 2, "vectors": 1}
    trials = [
        Trial(default, 2e-3),
        Trial({"vectors": 2, "rows": 4}, 1e-3),
        Trial({"rows": 16, "vectors": 1}),
        Trial({"tile": 8}, 1e-9),
    ]
    predicted = {(("rows", 2), ("vectors", 1)): 1e-3, (("rows", 4), ("vectors", 2)): 2e-3}
    kernel = simulate.recorded("k", "dense", default, trials, predicted)
    assert kernel.space == {"rows": (2, 4, 16), "vectors": (1, 2)}
    assert kernel.best == 1e-3
    assert kernel.trial({"rows": 4, "vectors": 1}).seconds == 1e-3
    assert kernel.trial({"rows": 16, "vectors": 2}).seconds is None
    assert kernel.estimates[:2] == pytest.approx([0, math.log(2)])
    found: list[Any] = simulate.replay(kernel, strategies.catalogue().create("random"), 9)
    assert len(found) == 3
    with pytest.raises(InputError, match="no record has the knobs of dense"):
        simulate.recorded("k", "dense", default, trials[3:])


def written(path: Path) -> None:
    """A tuning log of the kernel, measured at every point."""
    kernel = made()
    records = [
        log_records.record(
            point=dict(point),
            seconds=() if math.isnan(seconds) else (float(seconds),),
            verdict=Verdict.CRASH if math.isnan(seconds) else Verdict.OK,
        )
        for point, seconds in zip(kernel.points, kernel.seconds, strict=True)
    ]
    with access.open_log(str(path)) as opened:
        described = [log_records.kernel(), log_records.TARGET, log_records.TOOLS]
        assert opened.add(records, described).new == len(records)


@pytest.mark.parametrize("kind", ["sweep.npz", "log.db"])
def test_the_command_compares_strategies(
    tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / kind
    if kind == "log.db":
        written(path)
    else:
        simulate.save(path, [made()], {})
    before = path.read_bytes()
    called = ["tune", "--simulate", str(path), "--strategy", "evolutionary,annealing{hot=0.2}"]
    assert entry.run([*called, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kernels"], found["skipped"], found["trials"]) == (1, 0, 32)
    names = [row["strategy"] for row in found["strategies"]]
    assert names == ["evolutionary", "annealing{hot=0.2}", "random"]
    needed = {row["strategy"]: row["trials"] for row in found["strategies"]}
    assert 1 < needed["evolutionary"] < needed["random"] <= 32
    assert entry.run([*called, "--verbose"]) == 0
    told, said = capsys.readouterr()
    assert "replaying random on 1 kernels (3 of 3)" in said
    assert "nothing was measured" in told
    assert "annealing{hot=0.2}" in told
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--simulate", "none.db"], "none.db: no such file"),
        (["--simulate", "none.npz"], "none.npz"),
        (["--simulate", "{sweep}", "model.onnx"], "takes no MODEL"),
        (["--simulate", "{sweep}", "--strategy", "randum"], "did you mean 'random'?"),
        (["--simulate", "{small}"], "no kernel with 12 points"),
    ],
)
def test_what_cannot_be_replayed_is_said_in_a_line(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    simulate.save(tmp_path / "sweep.npz", [made()], {})
    small = simulate.recorded("k", "dense", {"rows": 1}, [Trial({"rows": 1}, 1.0)])
    simulate.save(tmp_path / "small.npz", [small], {})
    places = {"sweep": tmp_path / "sweep.npz", "small": tmp_path / "small.npz"}
    assert entry.run(["tune", *(text.format(**places) for text in arguments)]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert said in err
