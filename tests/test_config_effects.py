"""Every option of a configuration does something: what is seen of it in what comes out."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import region_models
from filled_logs import fill, model
from made_up import FAST, LOOSE, Candidate, all_better, go, verdicts

from hybridc.compiler import driver
from hybridc.compiler.assurance import timing
from hybridc.compiler.configuration import presets
from hybridc.compiler.configuration.config import HybridConfig, names
from hybridc.compiler.errors import HybridcError, InputError, MissingRecordError, ModelError
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.orchestration import prospects, side_by_side
from hybridc.compiler.orchestration.attempt import Outcome
from hybridc.compiler.orchestration.cascade import Cascaded
from hybridc.compiler.runtime.session import InferenceSession

PLUGIN = Path(__file__).parent.parent / "examples/plugins/merge_clips.py"


def figure(session: Any) -> float:
    """A measure of the user's: 0.5 for what is compiled, 1 for the reference."""
    return 0.5 if isinstance(session, InferenceSession) else 1.0


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, data, a log and a lock."""
    folder = tmp_path_factory.mktemp("place")
    fill(folder / "log.sqlite", model(folder / "small.onnx"))
    draw = np.random.default_rng(0)
    for name in ("one", "other"):
        np.savez(folder / f"{name}.npz", x=draw.standard_normal((4, 6, 48)).astype(np.float32))
    compiled(folder).artifact.save(folder / "lock.hyb")
    return folder


@pytest.fixture(scope="module")
def usual(place: Path) -> Outcome:
    """The small model without any option."""
    return compiled(place)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, known_peaks: None, hasty: None) -> None:
    monkeypatch.setattr(timing, "timed", lambda *_: Samples((0.008,) * 400))


def compiled(place: Path, **given: Any) -> Outcome:
    """The small model by a configuration; texts that name a file of the place are its path."""
    found = {
        name: place / value if isinstance(value, str) and (place / value).is_file() else value
        for name, value in given.items()
    }
    found |= {"log": str(found["log"])} if "log" in found else {}
    options = presets.options(HybridConfig(**found))
    return driver.compile_source(place / "small.onnx", options)


SHOWN: dict[str, tuple[dict[str, Any], Callable[[Any], Any]]] = {
    "target": ({"target": "avx2"}, lambda o: o.artifact.target["cpu"] == "x86-64-v3"),
    "threads": ({"threads": 1}, lambda o: o.artifact.target["threads"] == 1),
    "dtype": ({"dtype": "fp16"}, lambda o: o.report.precision == "fp16"),
    "level": ({"level": 0}, lambda o: "fuse" not in o.artifact.pipeline.split(",")),
    "pipeline": ({"pipeline": "minimal"}, lambda o: "fuse" not in o.artifact.pipeline.split(",")),
    "plugin": (
        {"plugin": (PLUGIN,), "pipeline": "merge-clips,default"},
        lambda o: o.artifact.pipeline.startswith("merge-clips"),
    ),
    "exact": ({"exact": True}, lambda o: "winograd=false" in o.artifact.pipeline),
    "min_throughput": ({"min_throughput": 1e6}, lambda o: "throughput" in o.broken[0]),
    "max_memory": ({"max_memory": "1B"}, lambda o: "peak memory" in o.broken[0]),
    "max_size": ({"max_size": "1B"}, lambda o: "artifact size" in o.broken[0]),
    "min_accuracy": ({"min_accuracy": {"snr": 500}}, lambda o: "accuracy snr" in o.broken[0]),
    "max_latency": ({"max_latency": "p99<=1ms"}, lambda o: "p99 latency" in o.broken[0]),
    "validate": (
        {"validate": "test_config_effects:figure", "min_accuracy": {"figure": 0.7}},
        lambda o: "the reference's own figure is 1" in o.broken,
    ),
    "max_drop": (
        {"validate": "test_config_effects:figure", "max_drop": {"validate": 0.1}},
        lambda o: "drop of validate: wanted at most 0.1, measured 0.5" in o.broken[0],
    ),
    "calibration": (
        {"calibration": "one.npz"},
        lambda o: o.artifact.certificate["data"] == "calibration data, 4 samples",
    ),
    "validation": (
        {
            "calibration": "one.npz",
            "validation": "other.npz",
            "dtype": "int8",
            "min_accuracy": {"cosine": 0.1},
        },
        lambda o: (
            o.artifact.certificate["data"] == "validation data, 4 samples"
            and o.artifact.certificate["calibration"]["samples"] == 4
        ),
    ),
    "seed": ({"seed": 5}, lambda o: o.artifact.certificate["seed"] == 5),
    "verify": ({"verify": "off"}, lambda o: not o.report.agreement),
    "rtol": ({"rtol": 0.25}, lambda o: o.report.agreement[0]["rtol"] == 0.25),
    "atol": ({"atol": 0.25}, lambda o: o.report.agreement[0]["atol"] == 0.25),
    "profile": ({"profile": True}, lambda o: o.report.profile),
    "monitor": ({"monitor": True}, lambda o: o.report.monitored),
    "monitor_interval": (
        {"monitor": True, "monitor_interval": "7s"},
        lambda o: o.report.monitored.to_json()["interval_s"] == 7.0,
    ),
    "log": ({"log": "log.sqlite"}, lambda o: o.report.records["hits"] > 1),
    "near": (
        {"near": "any", "log": "log.sqlite", "threads": 1},
        lambda o: o.report.records["near"] > 0,
    ),
    "lock": ({"lock": "lock.hyb"}, lambda o: "locked" in o.report.records),
}


@pytest.mark.parametrize("name", SHOWN)
def test_an_option_is_seen_in_what_is_compiled(name: str, place: Path, usual: Outcome) -> None:
    given, seen = SHOWN[name]
    assert name in given
    assert seen(compiled(place, **given))
    without = {key: value for key, value in given.items() if key != name}
    if name in ("validate", "plugin"):
        with pytest.raises(HybridcError):  # what the others name is not known without
            compiled(place, **without)
    elif name not in ("target", "threads"):  # this machine may be just so
        assert not shown(seen, compiled(place, **without) if without else usual)


def shown(seen: Callable[[Outcome], Any], found: Outcome) -> bool:
    """Whether an effect is seen, where what it is looked for in may not be there."""
    try:
        return bool(seen(found))
    except (IndexError, KeyError, TypeError, AttributeError):
        return False


def test_a_trace_is_written(place: Path, tmp_path: Path) -> None:
    compiled(place, trace=tmp_path / "t.json")
    assert json.loads((tmp_path / "t.json").read_text())["traceEvents"]


def test_what_is_frozen_wants_records(place: Path) -> None:
    with pytest.raises(MissingRecordError):
        compiled(place, frozen=True)
    compiled(place, frozen=True, log="log.sqlite")


def test_without_fallback_what_cannot_be_compiled_is_refused(tmp_path: Path) -> None:
    onnx.save(region_models.network("DeformConv"), tmp_path / "small.onnx")
    assert compiled(tmp_path).report.regions
    with pytest.raises(ModelError, match="DeformConv"):
        compiled(tmp_path, fallback=False)


def test_other_backends_want_a_device_of_theirs(place: Path) -> None:
    with pytest.raises(InputError, match="it has tvm"):
        compiled(place, backends=["tvm", "cudnn"])
    compiled(place, backends=["tvm"])


Found = Cascaded[Candidate]


def steered(contract: Any = LOOSE, **given: Any) -> tuple[Found, Any]:
    """Made-up candidates by a configuration, and their maker."""
    options = presets.options(HybridConfig(**given))
    maker = all_better()
    return go(options.steering, maker, contract, tuning=options.tuning), maker


def first_budget(**given: Any) -> float:
    """Seconds that tuning may take of a budget."""
    _, maker = steered(**given)
    return float(str(maker.budgets[0])[:-1])


@pytest.mark.usefixtures("bf16_alone")
class TestSteering:
    """What stages become of."""

    def test_strategy(self) -> None:
        found = {
            name: tuple(steered(FAST, strategy=name, trials=2)[1].asked)
            for name in ("cascade", "fusion", "adaptive", "hierarchical", "parallel")
        }
        assert found["cascade"] == ("exact", "tuned", "tuned+bf16")
        assert found["fusion"] == ("exact", "tuned", "tuned+bf16", "tuned+bf16+bare")
        assert found["hierarchical"] == found["adaptive"] == ("exact", "bf16")
        assert found["parallel"] == ("exact", "tuned", "bf16", "bare")

    def test_components_and_tier(self) -> None:
        assert steered(strategy="fusion", components=["precision"])[1].asked == ["exact", "bf16"]
        assert steered(strategy="fusion", tier="conservative")[1].asked == ["exact"]
        for tier in ("balanced", "aggressive", "insane"):
            asked = steered(strategy="fusion", tier=tier)[1].asked
            assert asked == ["exact", "tuned", "tuned+bf16", "tuned+bf16+bare"]
        hours = [first_budget(strategy="fusion", tier=t) for t in ("aggressive", "insane")]
        assert hours[1] > 7 * hours[0]

    def test_mode_weights_and_budget(self) -> None:
        plain = first_budget(strategy="fusion", trials=2, budget="100s")
        assert first_budget(strategy="fusion", trials=2, budget="200s") > 1.9 * plain
        assert first_budget(strategy="fusion", mode="neural", budget="100s") > 1.5 * plain
        weights = {"neural": 0.1, "precision": 0.9}
        assert first_budget(strategy="fusion", trials=2, budget="100s", weights=weights) < plain
        for mode in ("quantum", "superopt"):
            found, _ = steered(strategy="fusion", mode=mode, budget="100s")
            assert verdicts(found)[mode] == "not installed"
        turns, _ = steered(strategy="fusion", mode="dynamic", budget="100s")
        assert "tuned-4" in verdicts(turns)
        with pytest.raises(InputError, match="give one, --budget"):
            presets.options(HybridConfig(mode="intelligent")).steering.check()

    def test_levels_and_their_weights(self) -> None:
        asked = steered(strategy="hierarchical", trials=2, levels=["kernel"])[1].asked
        assert asked == ["exact", "tuned"]
        common = {"strategy": "hierarchical", "trials": 2, "budget": "100s"}
        common |= {"levels": ["kernel", "graph"]}
        light = first_budget(**common, level_weights={"kernel": 0.1, "graph": 1.0})
        assert light < 0.3 * first_budget(**common)

    def test_order_and_threshold(self) -> None:
        assert steered(strategy="fusion", trials=2, order=["bf16"])[1].asked[1] == "bf16"
        found, _ = steered(strategy="fusion", trials=2, threshold=0.2)
        assert verdicts(found)["tuned"] == "rolled back"

    def test_predict_depth_and_adaptive(self) -> None:
        def doubt(**given: Any) -> float:
            found, _ = steered(FAST, predict=True, **given)
            told = {each.stage: each for each in found.decisions}["bf16"].predicted
            assert told is not None
            return float(told["sigma"])

        assert doubt(depth=1) > doubt() > doubt(depth=3)
        assert all(each.predicted is None for each in steered(FAST)[0].decisions)
        found, _ = steered(strategy="fusion", adaptive=True)
        assert found.decisions[-1].predicted is not None

    def test_strict_and_resume(self) -> None:
        with pytest.raises(InputError, match="quantum"):
            steered(components=["quantum"], strict=True)
        assert verdicts(steered(components=["quantum"])[0])["quantum"] == "not installed"
        for resume in (True, False):
            given = HybridConfig(resume=resume, strategy="fusion")
            assert driver.resumes(presets.options(given)) is resume

    def test_trials(self) -> None:
        for trials in (3, 5):
            tuning = presets.options(HybridConfig(trials=trials)).tuning
            assert tuning is not None
            assert tuning.trials == trials


def test_workers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []

    def drafts(_: Any, __: str, jobs: Any, workers: int, seconds: float) -> list[Any]:
        counts.append(workers)
        assert math.isfinite(seconds)
        return [side_by_side.BuildError("no such luck") for _ in jobs]

    monkeypatch.setattr(side_by_side, "drafts", drafts)
    monkeypatch.setattr(prospects, "vain", lambda *_: "")
    for workers in (1, 2):
        compiled(place, strategy="parallel", workers=workers, min_accuracy={"cosine": 0.9})
    assert counts == [1, 2]


ELSEWHERE = {
    *(
        "backends",
        "fallback",
        "frozen",
        "trace",
        "workers",
        "trials",
        "strategy",
        "components",
        "tier",
    ),
    *("mode", "weights", "budget", "levels", "level_weights", "order", "threshold", "predict"),
    *("depth", "adaptive", "strict", "resume"),
}


def test_no_option_is_left_out() -> None:
    assert set(SHOWN) | ELSEWHERE == set(names())
