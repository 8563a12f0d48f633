"""The cost model learns from one's own log, and `--explain` tells what guided a search."""

import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hybridc.cli import main as entry
from hybridc.compiler import driver, plugin
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.interfaces import Point, Trial
from hybridc.compiler.log import access, keys
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.tuning import tasks
from hybridc.compiler.tuning.prediction import cost_model, explained, training
from hybridc.compiler.tuning.prediction.cost_model import CostModel, Group
from hybridc.compiler.tuning.tasks import Task

pytest.importorskip("xgboost")
WIDTHS = (48, 40, 56, 72, 64, 80)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Products of many sizes, one behind the other."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("model") / "chain.onnx"
    weights = [
        numpy_helper.from_array(rng.standard_normal(shape).astype("float32"), f"w{i}")
        for i, shape in enumerate(pairwise(WIDTHS))
    ]
    nodes = [helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(5)]
    graph = helper.make_graph(
        nodes,
        "chain",
        [helper.make_tensor_value_info("x0", TensorProto.FLOAT, [24, WIDTHS[0]])],
        [helper.make_tensor_value_info("x5", TensorProto.FLOAT, [24, WIDTHS[-1]])],
        weights,
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def kernels(source: Path) -> list[Task]:
    model = driver.unscheduled(source, Options(threads=2))
    return tasks.distinct(tasks.kernels(model.module, model.context, model.finish))


def seconds(point: Point) -> float:
    """A time that likes few rows: no model thinks so."""
    return float(1e-5 * (1 + point.get("rows", 1) + 0.1 * point.get("vectors", 1)))


def points(task: Task, count: int = 9) -> list[Point]:
    found = {
        task.search.key(point): point for point in map(task.search.point, range(task.search.size))
    }
    return [
        dict(task.search.default),
        *list(found.values())[:: max(1, len(found) // count)][:count],
    ]


def filled(path: Path, every: list[Task], mode: str = "") -> None:
    tools = keys.of_toolchain()
    with access.open_log(str(path)) as log:
        for task in every:
            target = keys.of_target(task.kernel.target)
            records = [
                Record(
                    workload=task.workload.key,
                    target=target.key,
                    toolchain=tools.key,
                    rule=plugin.name_of(type(task.kernel.rule)),
                    point=dict(point),
                    verdict=Verdict.OK,
                    seconds=(seconds(point),) * 3,
                    mode=mode or task.kernel.mode,
                    when=1.7e9 + number,
                    who="tester",
                    seed=0,
                )
                for number, point in enumerate(points(task))
            ]
            assert log.add(records, [task.workload, target, tools]).faults.count == 0


def test_ones_own_log_teaches_the_cost_model(
    source: Path,
    kernels: list[Task],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HYBRIDC_CACHE", str(tmp_path / "cache"))
    filled(tmp_path / "log.sqlite", kernels)
    call = ["log", "train", str(source), "--log", str(tmp_path / "log.sqlite"), "--threads", "2"]
    assert entry.run([*call, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["kernels"] == len(kernels)
    assert found["after"] > found["before"]
    assert found["file"] == str(cost_model.own())
    assert not found["replaced"]
    assert entry.run(call) == 0
    assert "instead of the one that was there" in capsys.readouterr().out
    rows = kernels[0].predictor.features.of(points(kernels[0]))
    wanted = [seconds(point) for point in points(kernels[0])]
    target = kernels[0].kernel.target
    taught, shipped = map(cost_model.load, (cost_model.own(), cost_model.pretrained(target)))
    assert cost_model.kendall(taught.predict(rows), wanted) > 0.8
    assert cost_model.kendall(shipped.predict(rows), wanted) < 0.8
    assert taught.knows(rows)
    cost_model.own().write_bytes(b"torn")
    assert str(cost_model.own()) in cost_model.note(target)


def test_what_is_held_out_teaches_nothing(
    source: Path, kernels: list[Task], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by another model that has it too, nor in another state of the caches."""
    monkeypatch.setenv("HYBRIDC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "log.sqlite"
    for state in ("warm", "cold"):
        filled(path, kernels, state)
    taught: list[set[bytes]] = []
    refined = cost_model.refined

    def heard(model: CostModel, groups: Sequence[Group]) -> CostModel:
        taught.append({group.features.tobytes() for group in groups})
        return refined(model, groups, 1)

    monkeypatch.setattr(cost_model, "refined", heard)
    with access.open_log(str(path)) as log:
        models = (driver.unscheduled(source, Options(threads=2)) for _ in range(2))
        found = training.train(log, models)
    assert found.kernels == len(kernels)
    assert [len(each) for each in taught[: len(kernels)]] == [len(kernels) - 1] * len(kernels)


def test_too_little_to_learn_from_is_one_line(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.sqlite"
    access.open_log(str(path)).close()
    assert entry.run(["log", "train", str(source), "--log", str(path)]) == 2
    said = capsys.readouterr().err
    assert "training takes 4 kernels with 4 points or more" in said
    assert "these models have 0: tune them first" in said
    assert said.count("\n") == 1
    assert entry.run(["log", "train", str(source), "--threads", "9999"]) == 2
    assert "9999" in capsys.readouterr().err
    assert entry.run(["log", "train", str(source), "--log", str(tmp_path / "none")]) == 2
    assert "there is no tuning log" in capsys.readouterr().err


def test_both_models_are_told_and_which_one_ranked(kernels: list[Task]) -> None:
    task = kernels[0]
    task.history = [Trial(point, seconds(point)) for point in points(task)]
    told = explained.of(task)
    assert told["ranked_by"] == "learned"
    assert all(-1 <= told[name] <= 1 for name in ("tau_learned", "tau_analytic"))
    assert [each["measured"] for each in told["predicted"]] == sorted(
        each["measured"] for each in told["predicted"]
    )
    (default,) = [e for e in told["predicted"] if task.is_default(e["point"])][:1]
    assert default["learned"] == default["analytic"] == default["measured"] == 1.0
    text = explained.text([{"kernel": "product", **told}])
    assert "τ learned  τ analytic" in text
    assert "product  learned" in text


def test_a_strategy_that_asks_no_model_is_said(
    kernels: list[Task], monkeypatch: pytest.MonkeyPatch
) -> None:
    task: Any = kernels[1]
    task.history, task.proposed = [Trial(point, seconds(point)) for point in points(task)], True
    assert explained.of(task)["ranked_by"] == "strategy"
    score = task.predictor.score(task.history, lambda _: None)
    assert score is not None
    score(points(task))
    assert explained.of(task)["ranked_by"] == "learned"
    monkeypatch.setattr(cost_model, "own", lambda: Path("/nowhere"))
    monkeypatch.setattr(cost_model, "pretrained", lambda _: Path("/nowhere"))
    fresh = Task(task.kernel, 1, task.workload, task.search, task.history)
    told = explained.of(fresh)
    assert (told["ranked_by"], told["tau_learned"]) == ("analytic", None)
    del fresh
