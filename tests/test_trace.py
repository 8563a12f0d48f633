"""A trace keeps to the trace-event format: everything nests, and every process has its track."""

import json
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import example_monitored
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hybridc.cli import main as entry
from hybridc.compiler import driver
from hybridc.compiler import settings as process_settings
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import ModelError
from hybridc.compiler.monitoring import trace
from hybridc.compiler.monitoring.timeline import Timeline
from hybridc.compiler.processes.child import Child
from hybridc.compiler.tuning.candidates.spans import Spans

DIGITS = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"
_ROUNDING = 1e-3  # microseconds: a nanosecond


def checked(data: dict[str, Any]) -> list[dict[str, Any]]:
    """The complete events of a trace, once all that the format asks for holds."""
    events = data["traceEvents"]
    assert data["displayTimeUnit"] == "ms"
    named = {e["pid"] for e in events if e["ph"] == "M" and e["name"] == "process_name"}
    tracks: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for event in events:
        assert event["ph"] in "XMC"
        assert event["pid"] in named
        if event["ph"] == "C":
            assert event["ts"] >= -_ROUNDING
            assert all(isinstance(v, int | float) for v in event["args"].values())
        if event["ph"] == "X":
            assert event["name"]
            assert event["ts"] >= -_ROUNDING
            assert event["dur"] >= 0
            tracks[event["pid"], event["tid"]].append(event)
    for track in tracks.values():
        _nested(track)
    return [event for event in events if event["ph"] == "X"]


def _nested(track: list[dict[str, Any]]) -> None:
    """Of two events that overlap, one holds the other; holders come first."""
    open_ends: list[float] = []
    last = 0.0
    for event in track:
        start, end = event["ts"], event["ts"] + event["dur"]
        assert start >= last - _ROUNDING
        last = start
        while open_ends and start >= open_ends[-1] - _ROUNDING:
            open_ends.pop()
        assert not open_ends or end <= open_ends[-1] + _ROUNDING
        open_ends.append(end)


@pytest.mark.usefixtures("known_peaks")
def test_a_compilation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, made, page = (tmp_path / name for name in ("trace.json", "d.hyb", "page.html"))
    asked = ["--trace", str(out), "--monitor", "--monitor-interval", "20ms", "--report", str(page)]
    assert entry.run(["compile", str(DIGITS), "-o", str(made), "--json", *asked]) == 0
    told = json.loads(capsys.readouterr().out)
    events = checked(json.loads(out.read_text()))
    kinds = defaultdict(list)
    for event in events:
        kinds[event["cat"]].append(event)
    assert [e["name"] for e in kinds["stage"]] == [
        "load",
        "reference",
        "build",
        "count memory",
        "load artifact",
        "verify",
    ]
    stages = {stage["name"] for stage in told["stages"]}
    assert {f"pass {e['name']}" for e in kinds["pass"]} <= stages
    rules = {e["name"]: e["args"]["rule"] for e in kinds["kernel"]}
    assert rules == {kernel["kernel"]: kernel["rule"] for kernel in told["kernels"]}
    counters = {e["name"] for e in json.loads(out.read_text())["traceEvents"] if e["ph"] == "C"}
    assert "memory: this process tree" in counters
    assert {s["group"] for s in told["monitor"]["series"]} >= {"CPU", "cores", "memory"}
    assert {mark["name"] for mark in told["monitor"]["marks"]} >= {"load", "passes", "build"}
    assert "What the machine did meanwhile" in page.read_text()


def test_a_compilation_that_fails_has_a_trace_too(tmp_path: Path) -> None:
    out = tmp_path / "trace.json"
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(ModelError):
        driver.compile_source(broken, Options(trace=out))
    (event,) = checked(json.loads(out.read_text()))
    assert (event["name"], event["args"]["raised"]) == ("load", "ModelError")


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for verb in ("compile", "tune"):
        assert entry.run([verb, str(DIGITS), "--trace", str(tmp_path / "no" / "t.json")]) == 2
        assert "there is no folder" in capsys.readouterr().err
        assert entry.run([verb, str(DIGITS), "--trace", str(tmp_path)]) == 2
        assert "this is a folder" in capsys.readouterr().err
    for verb in ("compile", "tune", "bench"):
        assert entry.run([verb, str(DIGITS), "--monitor", "--monitor-interval", "often"]) == 2
        assert "'often' is not a duration" in capsys.readouterr().err


def test_what_children_do_stands_on_tracks_of_their_own(tmp_path: Path) -> None:
    file = tmp_path / "echo_for_trace.py"
    file.write_text(
        "from hybridc.compiler.processes.child import serve\n"
        "def answer(request):\n"
        "    if request['do'] == 'fail': raise ValueError('no')\n"
        "    return {'verdict': 'ok', 'seconds': [3e-3, 1e-3, 2e-3]}\n"
        "serve(answer)\n"
    )
    timeline = Timeline()
    spans = Spans(timeline)
    spans.name(tmp_path / "1.json", "conv2d")
    environment = process_settings.environment(1)
    environment["PYTHONPATH"] = f"{tmp_path}:{environment.get('PYTHONPATH', '')}"
    child = Child("echo_for_trace", environment, spans.by("runner"))
    with timeline.span("tune", "stage"):
        asked = {"do": "measure", "kernel": str(tmp_path / "1.json"), "point": {"rows": 8}}
        child.ask(asked, 600.0)
        child.ask({"do": "fail"}, 600.0)
    child.kill()
    events = checked(trace.events(timeline))
    mine = [event for event in events if event["pid"] == child.number]
    assert [event["name"] for event in mine] == ["measure conv2d", "fail"]
    assert mine[0]["args"] == {
        "point": {"rows": 8},
        "verdict": "ok",
        "samples": 3,
        "median_s": 2e-3,
    }
    assert "ValueError" in mine[1]["args"]["error"]
    assert list(timeline.processes.values()) == ["hybridc", "runner"]


def test_counters_begin_when_the_monitor_does() -> None:
    timeline = Timeline()
    seen = example_monitored.make()
    object.__setattr__(seen, "began", timeline.start + 5_000)
    events = trace.events(timeline, seen)["traceEvents"]
    counters = [event for event in events if event["ph"] == "C"]
    assert counters[0]["ts"] == 5.0
    checked({"traceEvents": events, "displayTimeUnit": "ms"})


@settings(deadline=None)
@given(st.lists(st.integers(1, 4), max_size=6))
def test_spans_nest_however_they_are_opened(depths: list[int]) -> None:
    timeline = Timeline()
    with timeline.span("whole", "attempt"):
        for depth in depths:
            with ExitStack() as stack:
                for level in range(depth):
                    facts = {"level": float("inf")}  # which JSON has no number for
                    stack.enter_context(timeline.span(f"level {level}", "stage", **facts))
    events = checked(json.loads(json.dumps(trace.events(timeline), allow_nan=False)))
    assert len(events) == 1 + sum(depths)
