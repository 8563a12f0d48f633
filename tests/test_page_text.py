"""The report of an artifact as plain text: all that its page says, in lines."""

from pathlib import Path

from test_report_browser import decision
from test_report_page import artifact, measured

from hybridc.compiler.reporting import page_text, report_file
from hybridc.compiler.reporting.report import Stage
from hybridc.compiler.reporting.report_page import parts


def told() -> str:
    limits = {"max_latency": 5e-3, "min_accuracy": {"cosine": 0.999}}
    made = artifact(certificate={"kept": True, "contract": limits})
    stages = [decision("exact", "kept", 8e-3, 0.99), decision("bf16", "kept", 4e-3, 0.9995)]
    made.report.update(decisions=stages)
    steps = [Stage("load", 1.2), Stage("pass fuse{depth=4}", 1.5)]
    return page_text.text(parts(made, measured("dense"), steps))


def test_sections_stand_under_their_titles() -> None:
    lines = told().splitlines()
    at = lines.index("Certificate")
    assert lines[at - 1 : at + 2 : 2] == ["", "-----------"]
    assert "<" not in told().replace("<=", "")


def test_rows_of_charts_are_aligned_and_have_their_notes_below() -> None:
    lines = told().splitlines()
    at = lines.index("Latency, at most 5 ms")
    assert [line.split() for line in lines[at + 1 : at + 5]] == [
        ["exact", "8", "ms", "kept"],
        ["why", "exact"],
        ["bf16", "4", "ms", "kept"],
        ["why", "bf16"],
    ]
    steps = [line for line in lines if line.startswith(("load", "pass fuse"))]
    assert len({line.index(" s ") for line in steps}) == 1


def test_the_name_decides(tmp_path: Path) -> None:
    for name, page in (("a.html", True), ("a.HTM", True), ("a.txt", False), ("a", False)):
        report_file.write(artifact(), tmp_path / name, run=False)
        text = (tmp_path / name).read_text()
        assert text.startswith("<!doctype html>") == page
        assert "What there is to compute" in text
