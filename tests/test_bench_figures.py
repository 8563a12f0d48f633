"""What the figures of a comparison and of a profile mean."""

import json

import pytest

from hybridc.compiler.hardware.peaks import Peaks
from hybridc.compiler.measurement.bench import Comparison, Result
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.measurement.profile import KernelTime, Profile


def result(peer: str, *rounds: float) -> Result:
    return Result(peer, {peer: "1"}, Samples(rounds), rounds)


def test_ratios_are_taken_within_a_round() -> None:
    # The machine slows down by ten in the second round, for both.
    ours, theirs = result("ours", 1.0, 10.0, 1.0), result("theirs", 1.5, 15.0, 1.6)
    assert theirs.ratio(ours) == pytest.approx(1.5)
    assert ours.ratio(ours) == 1.0


def test_a_comparison_as_text_and_data() -> None:
    comparison = Comparison((result("a", 0.001), result("b", 0.002)), {"c": "it is shy"}, 2, 0.0)
    text = comparison.text()
    assert "ratio to a" in text
    assert "2.000" in text
    assert "1.00 ms" in text
    assert "c was left out: it is shy" in text
    assert "warning" not in text
    data = json.loads(json.dumps(comparison.to_json()))
    assert [entry["ratio"] for entry in data["results"]] == [1.0, 2.0]
    assert data["results"][1]["median_ms"] == pytest.approx(2.0)
    assert data["quiet"] is True


def test_a_machine_that_was_not_quiet_is_told() -> None:
    comparison = Comparison((result("a", 0.001),), {}, 2, 1.5)
    assert "warning: other programs kept 1.5 cores busy" in comparison.text()
    assert comparison.to_json()["quiet"] is False


def test_a_kernel_against_the_roofline() -> None:
    kernel = KernelTime("dense", "dense", 2, seconds=4.0, flops=100, traffic=10)
    assert kernel.achieved == 50.0
    assert kernel.roofline(Peaks(flops=100.0, bandwidth=1000.0)) == 0.5
    assert kernel.roofline(Peaks(flops=100.0, bandwidth=5.0)) == 1.0
    quantised = KernelTime("int8", "dense", 1, 1.0, flops=100, traffic=10, precision="int8")
    assert quantised.roofline(Peaks(100.0, 1000.0, int8=400.0)) == 0.25
    copy = KernelTime("copy", "copy", 1, seconds=1.0, flops=0, traffic=10)
    assert copy.roofline(Peaks(1.0, 20.0)) == 0.5
    assert KernelTime("sort", "-", 1, 1.0, flops=0, traffic=0).roofline(Peaks(1.0, 1.0)) is None
    both = Profile((kernel, copy), Peaks(100.0, 5.0))
    assert both.seconds == 5.0
    assert both.limit == 5.0  # what is faster than the roofline counts with what it took
    text = Profile((kernel, copy), Peaks(100.0, 1000.0)).text()
    assert "80.0%" in text
    assert "50%" in text
