"""The whole page in a browser: no message, every chart there, nothing wider than the window."""

import html
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import example_monitored
import pytest
from test_report_page import Reader, artifact, measured

from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Measured
from hybridc.compiler.reporting.report import Stage
from hybridc.compiler.reporting.report_page import render

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "google-chrome", "chrome"))), None)


def decision(stage: str, verdict: str, seconds: float = 0.0, cosine: float = 0.0) -> Any:
    accuracy = {"cosine": Estimate.exactly(cosine), "snr": Estimate.exactly(40.0)} if cosine else {}
    found = Measured(Estimate.exactly(seconds), accuracy=accuracy).to_json() if seconds else None
    return {"stage": stage, "verdict": verdict, "reason": f"why {stage}", "measured": found}


def whole(cores: int = 4) -> str:
    """A page with everything that a page may have."""
    limits = {"max_latency": 5e-3, "min_accuracy": {"cosine": 0.999}}
    made = artifact(certificate={"kept": True, "contract": limits})
    noise = Measured(accuracy={"snr": Estimate.exactly(math.inf)}).to_json()
    perfect = {"stage": "perfect", "verdict": "not needed", "measured": noise}
    made.report.update(
        decisions=[
            decision("exact", "kept", 8e-3, 0.999999),
            decision("tuned", "rolled back", 9e-3, 0.999999),
            decision("bf16", "kept", 4e-3, 0.9995),
            decision("int8", "rolled back", 3e-3, 0.98),
            decision("int4", "not needed"),
            perfect,
        ],
        component_results=[
            {"component": "neural", "contribution": 0.25, "speedup": 1.2},
            {"component": "precision", "contribution": 0.75, "speedup": None},
        ],
        hybrid_efficiency=0.5,
    )
    name = "fused_conv2d_add_relu_with_a_name_that_goes_on_and_on_without_any_place_to_break"
    stages = [Stage("load", 0.5), Stage("pass fuse{depth=4}", 1.5)]
    seen = example_monitored.make(cores)
    return render(made, measured("dense", "other", name), stages, monitored=seen)


def test_waterfalls_of_latency_and_accuracy() -> None:
    page = Reader(whole())
    labels = [str(a.get("aria-label")) for tag, a in page.seen if tag == "svg"]
    assert "bf16: 4 ms, kept" in labels
    assert "int8: 0.98, rolled back" in labels
    assert "tuned: 40 dB, rolled back" in labels
    assert "int4: -, not needed" in labels
    assert "perfect: inf dB, not needed" in labels
    assert "Latency, at most 5 ms" in page.text
    assert "Accuracy by cosine, drawn as the distance from 1, limit 0.999" in page.text
    kinds = [a["class"] for tag, a in page.seen if tag == "rect"]
    assert kinds.count("gain") == 2  # the key, and bf16's latency; int8 was rolled back
    assert kinds.count("loss") == 2  # the key, and bf16's cosine
    limits = [a for tag, a in page.seen if tag == "line" and a["class"] == "limit"]
    assert len(limits) == 4 + 4  # none beside int4, which nobody measured
    assert limits[0]["x1"] == "555.6"  # 5 of 9 ms
    assert "hybrid efficiency 0.50" in page.text


def test_the_certificate_tells_what_was_measured_with_its_bounds() -> None:
    found = Measured(
        Estimate(4e-3, 3e-3, 4.5e-3), size=2000, accuracy={"cosine": Estimate(0.99, 0.98, 1.0)}
    )
    given = {"contract": {"max_latency": 5e-3}, "kept": True, "measured": found.to_json()}
    text = Reader(render(artifact(certificate=given))).text
    assert "latency4 ms3 ms4.5 ms" in text
    assert "artifact size2 kB--" in text
    assert "accuracy cosine0.990.981" in text
    for strange in (3, {"latency": 3}, {"size": "x"}, {"accuracy": {"cosine": {"value": "x"}}}):
        render(artifact(certificate={**given, "measured": strange}))


def test_curves_have_titles_units_and_words() -> None:
    page = Reader(whole(64))
    labels = [str(a.get("aria-label")) for tag, a in page.seen if tag == "svg"]
    assert any(label.startswith("CPU (cores): this process tree") for label in labels)
    assert any("64 cores, busy from" in label for label in labels)
    assert page.count("figure") == 4
    assert page.count("figcaption") == 4
    assert "core 60-63" in page.text  # too many for a row each
    assert "Not monitored: GPU: no NVIDIA GPU" in page.text
    assert "energy of package-0: 1234 J" in page.text


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("dark", [True, False])
@pytest.mark.parametrize("width", [360, 1000])
def test_a_browser_shows_the_whole_page(width: int, dark: bool, tmp_path: Path) -> None:
    """A frame as wide as the window that is meant: its document must not be wider."""
    assert CHROMIUM is not None
    frame = (
        "<!doctype html><body style='margin:0'>"
        f"<iframe style='width:{width}px;height:900px;border:0' srcdoc=\"{html.escape(whole())}\">"
        "</iframe><script>onload = () => { const d = frames[0].document;"
        "const body = frames[0].getComputedStyle(d.body);"
        "const charts = [...d.querySelectorAll('svg[role=img]')];"
        "const flat = charts.filter(c => !c.getBoundingClientRect().width"
        " || !c.getBoundingClientRect().height);"
        "const root = d.documentElement;"
        "document.title = [root.scrollWidth - root.clientWidth, charts.length, flat.length,"
        " body.color].join(' | '); }</script>"
    )
    (tmp_path / "frame.html").write_text(frame)
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--v=0"]
    options += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,1000"]
    options += [f"--blink-settings=preferredColorScheme={0 if dark else 1}"]
    done = subprocess.run(
        [CHROMIUM, *options, "--dump-dom", (tmp_path / "frame.html").as_uri()],
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    assert not re.findall(r"CONSOLE.*", done.stderr)
    found = re.search(r"<title>(-?\d+) \| (\d+) \| (\d+) \| (.*?)</title>", done.stdout)
    assert found is not None
    assert found[1] == "0"  # nothing is wider than the window, but for its scroll bar
    # Kernels 3; latency 6; cosine 4, snr 5; components 2; memory 1; steps 2; monitor 4.
    assert int(found[2]) == 3 + 6 + 4 + 5 + 2 + 1 + 2 + 4
    assert found[3] == "0"
    assert found[4] == ("rgb(240, 239, 233)" if dark else "rgb(26, 26, 25)")
