"""Contracts: what is read, what is refused, and what keeps them."""

import math
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridc.compiler.contract import Contract, Measured, parse_accuracy
from hybridc.compiler.errors import InputError
from hybridc.compiler.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5ms", 5e-3),
        ("250us", 250e-6),
        ("250µs", 250e-6),
        ("1s", 1),
        ("2min", 120),
        (" .5 h", 1800),
    ],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("text", "size"), [("800B", 800), ("10MB", 10**7), ("1.5kB", 1500), ("2GiB", 2**31)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "5", "ms", "-5ms", "5 parsec", "5ms5ms", "1e999s", "nanms"])
def test_what_is_no_duration_says_how_to_write_one(text: str) -> None:
    with pytest.raises(InputError, match="write it like 5ms"):
        parse_duration(text)


@given(text=st.text())
@pytest.mark.parametrize("parse", [parse_duration, parse_size, lambda text: parse_accuracy([text])])
def test_any_text_is_read_or_refused(parse: Callable[[str], object], text: str) -> None:
    try:
        parse(text)
    except InputError:
        return


@given(seconds=st.floats(1e-9, 1e6))
def test_a_written_duration_reads_back(seconds: float) -> None:
    text = format_duration(seconds)
    if "e" not in text:
        assert parse_duration(text) == pytest.approx(seconds, rel=1e-3)


@given(size=st.integers(1, 10**12))
def test_a_written_size_reads_back(size: int) -> None:
    text = format_size(size)
    if "e" not in text:
        assert parse_size(text) == pytest.approx(size, rel=1e-3)


def test_accuracies() -> None:
    assert parse_accuracy(["cosine=0.999", "max-abs = 1e-3"]) == {"cosine": 0.999, "max-abs": 1e-3}
    for texts, message in [
        (["cosin=1"], "did you mean 'cosine'"),
        (["cosine"], "is a number from -1 to 1, got ''"),
        (["cosine=much"], "got 'much'"),
        (["cosine=1.5"], "from -1 to 1"),
        (["top1=nan"], "from 0 to 1"),
        (["snr=20", "snr=30"], "limited twice"),
    ]:
        with pytest.raises(InputError, match=message):
            parse_accuracy(texts)


def test_text_and_numbers_mean_the_same() -> None:
    assert Contract("5ms", 10, "1MB") == Contract(0.005, 10.0, 10**6)
    assert Contract(max_latency="5ms").describe() == {"max_latency": 0.005}
    assert Contract().describe() == {}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_latency": 0}, "max_latency must be positive"),
        ({"max_latency": "0ms"}, "max_latency must be positive"),
        ({"min_throughput": math.nan}, "min_throughput"),
        ({"min_throughput": math.inf}, "min_throughput"),
        ({"max_size": -1}, "max_size"),
        ({"min_accuracy": {"accurate": 1}}, "no accuracy metric is named 'accurate'"),
    ],
)
def test_senseless_limits_are_refused(limits: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Contract(**limits)  # type: ignore[arg-type]


FULL = Contract("5ms", 100, "1MB", {"cosine": 0.99, "max-abs": 1e-3})
GOOD = {"cosine": 0.999, "max-abs": 1e-4}


def test_a_kept_contract_has_no_violations() -> None:
    assert FULL.judge(Measured(5e-3, 100, 10**6, GOOD)) == []
    assert Contract().judge(Measured()) == []


def test_each_violated_clause_is_a_sentence() -> None:
    bad = Measured(7.5e-3, 99, 2 * 10**6, {"cosine": 0.9, "max-abs": 1})
    assert FULL.judge(bad) == [
        "latency: wanted at most 5 ms, measured 7.5 ms",
        "throughput: wanted at least 100 calls/s, measured 99 calls/s",
        "artifact size: wanted at most 1 MB, measured 2 MB",
        "accuracy cosine: wanted at least 0.99, measured 0.9",
        "accuracy max-abs: wanted at most 0.001, measured 1",
    ]


def test_what_was_not_measured_is_not_kept() -> None:
    assert all(clause.endswith("not measured") for clause in FULL.judge(Measured()))
    assert len(FULL.judge(Measured())) == 5
    assert len(FULL.judge(Measured(math.nan, math.nan, 1, GOOD))) == 2
