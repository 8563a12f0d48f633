"""The page of an artifact: whole, safe whatever things are named, and shown by a browser."""

import html.parser
import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import example_artifact
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridc.cli import main as entry
from hybridc.compiler import driver
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Measured as Measurement
from hybridc.compiler.errors import ArtifactError
from hybridc.compiler.hardware.peaks import Peaks
from hybridc.compiler.measurement.conditions import Conditions
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.measurement.profile import KernelTime, Profile
from hybridc.compiler.model import TensorSpec
from hybridc.compiler.orchestration.decisions import KEPT, ROLLED_BACK, Decision
from hybridc.compiler.reporting import report_file
from hybridc.compiler.reporting.page_plot import COLOURS, Axes, Span
from hybridc.compiler.reporting.report import Stage
from hybridc.compiler.reporting.report_charts import Measured
from hybridc.compiler.reporting.report_page import render

HOSTILE = "<script>alert('&\"')</script>\x00\x1b]]><!--"
VOID = {"meta", "link", "br", "img"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)
DIGITS = Path(__file__).parent.parent / "examples" / "digits" / "digits.onnx"


class Reader(html.parser.HTMLParser):
    """Checks that every element is closed in its order; collects elements and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def count(self, tag: str, **wanted: str) -> int:
        fits = [a for t, a in self.seen if t == tag and wanted.items() <= a.items()]
        return len(fits)


def kernel(name: str, **changes: Any) -> dict[str, Any]:
    known = {"rule": "dense", "point": {"rows": 8}, "flops": 4000, "bytes": 100, "refused": {}}
    return {"kernel": name, **known, **changes}


def measured(*names: str) -> Measured:
    kernels = tuple(KernelTime(name, "dense", 2, 1e-3, 4000, 100) for name in names)
    return Measured("a CPU", 2, Samples((2e-3, 2e-3)), Profile(kernels, Peaks(1e7, 1e9)))


def artifact(**changes: Any) -> Artifact:
    report = {"kernels": [kernel("dense"), kernel("other", refused={"conv2d": "it has no window"})]}
    memory = {"peak": 100, "weights": 60, "activations": 20, "workspace": 10, "inputs": 10}
    return example_artifact.make(report={**report, "memory": memory}, **changes)


def test_a_bar_for_each_kernel_with_its_share() -> None:
    page = Reader(render(artifact(), measured("dense", "other")))
    labels = [a["aria-label"] for tag, a in page.seen if tag == "svg" and a.get("role") == "img"]
    assert labels[:2] == ["1 ms, 80% of the limit"] * 2  # 2 calls of 4000 FLOP at 10 MFLOP/s
    widths = [float(a["width"] or 0) for t, a in page.seen if t == "rect" and a["class"] == "bar"]
    assert 800.0 in widths
    assert "not conv2d: because it has no window" in page.text
    assert "digits" in page.text
    assert "100 B" in page.text  # of memory
    assert page.count("script") == 0


def test_without_a_run_it_tells_what_is_stored() -> None:
    page = Reader(render(artifact(), notice="The artifact was not run: this CPU lacks wings."))
    assert "lacks wings" in page.text
    assert "0.004 MFLOP" in page.text


def test_the_steps_of_the_compilation_have_their_times() -> None:
    page = Reader(render(artifact(), stages=[Stage("load", 0.5), Stage("pass fuse{depth=4}", 1.5)]))
    assert "pass fuse{depth=4}" in page.text
    assert "75%" in page.text
    assert "2 s in all" in page.text


def test_the_stages_of_the_cascade_stand_beside_the_limit() -> None:
    accuracy = {"cosine": Estimate(0.99, 0.98, 1.0)}
    decisions = [
        Decision("exact", KEPT, measured=Measurement(Estimate.exactly(8e-3)).to_json()),
        Decision(
            "bf16",
            ROLLED_BACK,
            "accuracy cosine: wanted at least 0.999",
            measured=Measurement(Estimate.exactly(4e-3), accuracy=accuracy).to_json(),
        ),
    ]
    made = artifact(certificate={"contract": {"max_latency": 5e-3}})
    made.report["decisions"] = [each.to_json() for each in decisions]  # type: ignore[index]
    page = Reader(render(made))
    widths = [float(a["width"] or 0) for t, a in page.seen if t == "rect"]
    assert {1000.0, 500.0} <= set(widths)
    assert 625.0 in {float(a["x1"] or 0) for t, a in page.seen if t == "line" and "x1" in a}
    assert "rolled back" in page.text
    assert "accuracy cosine: wanted at least 0.999" in page.text
    assert "bf160.99" in page.text.partition("Accuracy by cosine")[2]


def test_a_percentile_is_told_as_such() -> None:
    limits = {"max_latency": 5e-3, "latency_percentile": 90}
    stage = Decision("exact", KEPT, measured=Measurement(Estimate.exactly(8e-3)).to_json())
    said = "while other programs kept 1 core busy"
    made = artifact(certificate={"contract": limits, "kept": False, "broken": [said]})
    made.report["decisions"] = [stage.to_json()] * 2  # type: ignore[index]
    page = Reader(render(made))
    assert "p90 latency at most 5 ms" in page.text
    assert "p90 latency, at most 5 ms" in page.text
    assert "latency_percentile" not in page.text


def test_long_steps_have_colours_of_their_own() -> None:
    spans = [Span(str(i), 0.0, 100.0 if i > 3 else 1.0) for i in range(10)]
    colours = Axes(100.0, spans).colours()
    assert sorted(colours[str(i)] for i in range(4, 10)) == list(range(COLOURS - 1))
    assert {colours[str(i)] for i in range(4)} == {COLOURS - 1}


def test_hostile_names_stay_text() -> None:
    made = artifact(
        name=HOSTILE,
        inputs=(TensorSpec(HOSTILE, (1,), "float32"),),
        pipeline=HOSTILE.replace(",", ""),
        toolchain={HOSTILE: HOSTILE},
        certificate={
            "data": HOSTILE,
            "kept": False,
            "broken": [HOSTILE],
            "contract": {"a": HOSTILE},
        },
        target={"cpu": HOSTILE, "features": [HOSTILE], "machine": {HOSTILE: HOSTILE}},
    )
    nasty = kernel(HOSTILE, rule=HOSTILE, point={HOSTILE: 1}, refused={HOSTILE: HOSTILE})
    made.report["kernels"].append(nasty)
    made.report["notes"] = [HOSTILE]  # type: ignore[index]
    for text in (render(made), render(made, measured(HOSTILE), [Stage(HOSTILE, 1.0)])):
        page = Reader(text)
        assert page.count("script") == 0
        assert "<script>alert('&\"')</script>" in page.text
        assert "\x00" not in text
        assert "\x1b" not in text
        assert "default-src 'none'" in text


@given(st.dictionaries(st.text(max_size=3), example_artifact.JSON_VALUES, max_size=3))
def test_a_report_may_hold_anything(more: dict[str, Any]) -> None:
    known = ("kernels", "memory", "notes", "agreement", "decisions")
    for value in more.values():
        Reader(render(example_artifact.make(report=dict.fromkeys(known, value))))
        report = {
            "kernels": [dict.fromkeys(("kernel", "flops", "bytes", "point", "refused"), value)]
        }
        Reader(render(example_artifact.make(report=report, certificate={"agreement": value})))


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "digits.hyb"
    driver.compile(DIGITS, verify="off").save(path)
    return path


def test_the_verb_writes_a_page(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], known_peaks: None
) -> None:
    out = tmp_path / "page.html"
    assert entry.run(["report", str(digits), "-o", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}\n"
    page = Reader(out.read_text())
    names = {entry["kernel"] for entry in Artifact.load(digits).report["kernels"]}
    assert page.count("details") == len(names)
    assert all(name in page.text for name in names)
    assert "measured now" in page.text
    assert entry.run(["report", str(digits), "-o", str(out), "--no-run"]) == 0
    assert "measured now" not in out.read_text()


def test_the_same_is_told_as_data(
    digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], known_peaks: None
) -> None:
    out = tmp_path / "page.html"
    assert entry.run(["report", str(digits), "-o", str(out), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    kernels = {each["kernel"] for each in told["report"]["kernels"]}
    assert {each["kernel"] for each in told["measured"]["profile"]["kernels"]} == kernels
    assert told["measured"]["latency"]["median_ms"] > 0
    assert told["page"] == str(out)
    assert entry.run(["report", str(digits), "-o", str(out), "--json", "--no-run"]) == 0
    assert json.loads(capsys.readouterr().out)["measured"] is None


def test_compile_writes_the_page_with_its_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], known_peaks: None
) -> None:
    out, made = tmp_path / "page.html", tmp_path / "digits.hyb"
    assert entry.run(["compile", str(DIGITS), "-o", str(made), "--report", str(out)]) == 0
    assert "peak memory" in capsys.readouterr().out
    page = Reader(out.read_text())
    assert "pass plan-memory" in page.text
    assert "measured now" in page.text


def test_nothing_is_run_for_the_page_once_the_budget_has_ended(
    digits: Path, tmp_path: Path
) -> None:
    out = tmp_path / "page.html"
    for left in (0.0, 0.01):
        report_file.write(Artifact.load(digits), out, left=left)
        page = Reader(out.read_text())
        assert "measured now" not in page.text
        assert "not measured: the budget is used up" in page.text
    report_file.write(Artifact.load(digits), out, left=60.0)
    assert "measured now" in Reader(out.read_text()).text


def test_what_disturbed_the_measurement_for_the_page_is_told() -> None:
    found = measured("dense")
    assert "During this measurement" not in Reader(render(artifact(), found)).text
    busy = Conditions(busy=1.4, free=0, preempted=0.0, pace=5e-5, drift=1.0)
    found = replace(found, latency=Samples(found.latency.seconds, busy))
    told = "During this measurement other programs kept 1.4 cores busy"
    assert told in Reader(render(artifact(), found)).text


def test_a_time_far_from_that_of_the_certificate_is_told() -> None:
    found = measured("dense")
    for factor, said in ((1.0, False), (0.5, True), (2.0, True)):
        then = {"median_ms": factor * found.latency.median * 1e3}
        page = Reader(render(artifact(certificate={"latency": then}), found))
        assert ("When it was certified, a call took" in page.text) == said


def test_a_foreign_artifact_gets_a_page(tmp_path: Path) -> None:
    made = artifact(target={"features": ["wings"]})
    report_file.write(made, tmp_path / "page.html")
    assert "this CPU lacks wings" in (tmp_path / "page.html").read_text()


def test_bad_input(digits: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert entry.run(["report", str(tmp_path / "none.hyb")]) == 2
    assert "none.hyb" in capsys.readouterr().err
    assert entry.run(["report", str(digits), "-o", str(tmp_path / "no" / "page.html")]) == 2
    assert "there is no folder" in capsys.readouterr().err
    assert entry.run(["report", str(digits), "--threads", "100000"]) == 2
    assert "this process may use only" in capsys.readouterr().err
    with pytest.raises(ArtifactError):
        Artifact.load(tmp_path)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [360, 1000])
def test_a_browser_shows_it(width: int, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    path = tmp_path / "page.html"
    path.write_text(render(artifact(name=HOSTILE), measured("dense", "other", HOSTILE)))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert done.stdout.count('role="img"') == 4  # three kernels, and the memory
    assert not re.findall(r"CONSOLE.*", done.stderr)
    assert "<script" not in done.stdout
