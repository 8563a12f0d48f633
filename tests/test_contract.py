"""Contracts: what is read, what is refused, and what keeps them."""

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.assurance.limits import parse_latency, parse_limits
from hybridc.compiler.assurance.validation import Runner
from hybridc.compiler.errors import InputError
from hybridc.compiler.text.units import (
    format_duration,
    format_durations,
    format_size,
    parse_duration,
    parse_size,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5ms", 5e-3),
        ("250us", 250e-6),
        ("250\u00b5s", 250e-6),  # the sign, and the Greek letter
        ("250\u03bcs", 250e-6),
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
@pytest.mark.parametrize("parse", [parse_duration, parse_size, lambda text: parse_limits([text])])
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


def test_durations_to_be_compared_have_one_unit() -> None:
    assert format_durations([2.41e-5, 3.0e-5, None]) == ["24.1 us", "30.0 us", "-"]
    assert format_durations([0.0015, 12.0]) == ["1.50 ms", "12000.00 ms"]
    assert format_durations([0.25]) == ["250 ms"]
    assert format_durations([]) == []
    assert format_durations([None, 0.0]) == ["-", "-"]


@given(size=st.integers(1, 10**12))
def test_a_written_size_reads_back(size: int) -> None:
    text = format_size(size)
    if "e" not in text:
        assert parse_size(text) == pytest.approx(size, rel=1e-3)


def test_limits() -> None:
    assert parse_limits(["cosine=0.999", "max-abs = 1e-3"]) == {"cosine": 0.999, "max-abs": 1e-3}
    for texts, message in [
        (["cosine"], "'cosine' is not a limit; write it like cosine=0.999"),
        (["0.9"], "'0.9' is not a limit; write it like cosine=0.999"),
        (["cosine=much"], "got 'much'"),
        (["snr=20", "snr=30"], "given twice"),
        (["cosine<=0.9"], "'cosine' can only be limited by >=, got <="),
        (["max-abs>=1"], "'max-abs' can only be limited by <="),
        (["max-abs=1%"], "is a number, got '1%'"),
        (["snr=30%"], "is a number, got '30%'"),
        (["cosine=1dB"], "is a number, got '1dB'"),
        (["cosine>0.9"], "write it like cosine=0.999"),
        (["cosine==0.9"], "is a number, got '=0.9'"),
    ]:
        with pytest.raises(InputError, match=message):
            parse_limits(texts)


def test_limits_with_their_sign_and_unit() -> None:
    assert parse_limits(["snr=30db"]) == {"snr": 30}
    given = ["cosine >= 99.9%", "max-abs<=1e-3", "snr=30 dB", "top1=99%", "own>=0.5"]
    wanted = {"cosine": 0.999, "max-abs": 1e-3, "snr": 30, "top1": 0.99, "own": 0.5}
    assert parse_limits(given) == pytest.approx(wanted)
    assert parse_limits(["own<=1%"], "max drop") == {"own": 0.01}
    for what, text in (("max drop", "own>=1"), ("weights", "neural>=1")):
        with pytest.raises(InputError, match=r"limited by <=, got >=|set by =, not by >="):
            parse_limits([text], what)


@pytest.mark.parametrize(
    ("text", "percentile", "seconds"),
    [
        ("5ms", 50, 5e-3),
        ("median<=5ms", 50, 5e-3),
        ("<=5ms", 50, 5e-3),
        ("p99<=8ms", 99, 8e-3),
        (" P99.9 = 1s", 99.9, 1),
    ],
)
def test_latencies(text: str, percentile: float, seconds: float) -> None:
    assert parse_latency(text) == pytest.approx((percentile, seconds))
    contract = Contract(max_latency=text)
    assert (contract.latency_percentile, contract.max_latency) == pytest.approx(
        (percentile, seconds)
    )


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
        ({"max_memory": 0}, "max_memory must be positive"),
        ({"max_memory": "1 heap"}, "write it like 10MB"),
        ({"max_latency": "p99.99<=1ms"}, "percentile must be from 1 to 99.9, got p99.99"),
        ({"max_latency": "p0<=1ms"}, "percentile must be from 1"),
        ({"max_latency": "p99>=1ms"}, "limited by <=, got 'p99>=1ms'"),
        ({"min_accuracy": {"accurate": 1}}, "no accuracy metric is named 'accurate'"),
        ({"min_accuracy": {"cosin": 1}}, "did you mean 'cosine'"),
        ({"min_accuracy": {"cosine": 1.5}}, "from -1 to 1"),
        ({"min_accuracy": {"top1": math.nan}}, "from 0 to 1"),
        ({"min_accuracy": {"validate": 1}}, "needs a function: --validate"),
        ({"max_drop": {"validate": 1}}, "needs a function: --validate"),
        ({"max_drop": {"cosine": 1}, "validate": len}, "cannot limit 'cosine'; known: len"),
        ({"max_drop": {"lenn": 1}, "validate": len}, "cannot limit 'lenn'; did you mean 'len'"),
        ({"min_accuracy": {"lenn": 1}, "validate": len}, "did you mean 'len'"),
        ({"max_latency": "medain<=1ms"}, "named 'medain'; did you mean 'median'"),
        ({"max_latency": "mean<=1ms"}, "no statistic of latencies is named 'mean'"),
        ({"max_drop": {"len": -1}, "validate": len}, "from 0 on, got -1"),
    ],
)
def test_senseless_limits_are_refused(limits: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Contract(**limits)  # type: ignore[arg-type]


def figure(_: object) -> float:
    return 0.5


def test_what_was_measured_of_a_contract_is_told() -> None:
    found = Measured(
        Estimate.exactly(4.2e-3),
        size=2000,
        accuracy={"cosine": Estimate.exactly(0.9993), "validate": Estimate.exactly(0.98)},
    )
    assert Contract().told(found) == ""
    limits = Contract("p99<=5ms", max_size="1MB", min_accuracy={"cosine": 0.999}, validate=figure)
    assert limits.told(found) == (
        "p99 latency 4.2 ms of 5 ms, artifact size 2 kB of 1 MB, accuracy cosine 0.9993 of 0.999, "
        "figure 0.98"
    )
    own = Contract(validate=figure, min_accuracy={"figure": 0.97})
    assert own.told(found) == "accuracy validate 0.98 of 0.97"


FULL = Contract("5ms", 100, "1MB", {"cosine": 0.99, "max-abs": 1e-3}, "10MB")
exactly = Estimate.exactly
GOOD = {"cosine": exactly(0.999), "max-abs": exactly(1e-4)}


def test_a_kept_contract_has_no_violations() -> None:
    assert FULL.judge(Measured(exactly(5e-3), exactly(100), 10**7, 10**6, GOOD)) == []
    assert Contract().judge(Measured()) == []


def test_each_violated_clause_is_a_sentence() -> None:
    accuracy = {"cosine": exactly(0.9), "max-abs": exactly(1)}
    bad = Measured(exactly(7.5e-3), exactly(99), 2 * 10**7, 2 * 10**6, accuracy)
    assert FULL.judge(bad) == [
        "latency: wanted at most 5 ms, measured 7.5 ms",
        "throughput: wanted at least 100 calls/s, measured 99 calls/s",
        "peak memory: wanted at most 10 MB, measured 20 MB",
        "artifact size: wanted at most 1 MB, measured 2 MB",
        "accuracy cosine: wanted at least 0.99, measured 0.9",
        "accuracy max-abs: wanted at most 0.001, measured 1",
    ]


def test_what_was_not_measured_is_not_kept() -> None:
    assert all(clause.endswith("not measured") for clause in FULL.judge(Measured()))
    assert len(FULL.judge(Measured())) == 6
    assert len(FULL.judge(Measured(exactly(math.nan), exactly(math.nan), 1, 1, GOOD))) == 2


def test_what_only_seems_to_keep_a_limit_does_not() -> None:
    rough = Estimate(4.9e-3, 4.5e-3, 5.3e-3)
    assert Contract("p99<=5ms").judge(Measured(rough)) == [
        "p99 latency: wanted at most 5 ms, measured 4.9 ms, but perhaps 5.3 ms"
    ]
    assert Contract("5.4ms").judge(Measured(rough)) == []
    doubtful = {"cosine": Estimate(0.9992, 0.9988, 0.9995)}
    assert Contract(min_accuracy={"cosine": 0.999}).judge(Measured(accuracy=doubtful))
    assert not Contract(min_accuracy={"cosine": 0.998}).judge(Measured(accuracy=doubtful))


def test_what_misses_a_limit_by_less_than_its_digits_is_told_as_such() -> None:
    almost = Measured(Estimate(5e-3, 4.9e-3, 5.0001e-3), accuracy={"cosine": exactly(1 - 1e-12)})
    assert Contract("5ms", min_accuracy={"cosine": 1}).judge(almost) == [
        "latency: wanted at most 5 ms, measured 5 ms, but perhaps 5 ms (a little more)",
        "accuracy cosine: wanted at least 1, measured 1 (a little less)",
    ]


def test_perfection_is_asked_of_the_samples_that_there_are() -> None:
    all_of_ten = {"top1": Estimate(1.0, 0.8, 1.0)}
    assert Contract(min_accuracy={"top1": 1}).judge(Measured(accuracy=all_of_ten)) == []
    assert Contract(min_accuracy={"top1": 0.9}).judge(Measured(accuracy=all_of_ten))


def hits(_: Runner) -> float:
    """A measure of the user's."""
    return 1.0


def test_a_function_of_the_user_has_two_names() -> None:
    limits = Contract(min_accuracy={"hits": 3}, max_drop={"validate": 0.5}, validate=hits)
    assert limits.describe() == {
        "min_accuracy": {"validate": 3},
        "max_drop": {"validate": 0.5},
        "validate": "hits",
    }
    found = Measured(accuracy={"validate": exactly(2)}, drop={"validate": exactly(0.75)})
    assert limits.judge(found) == [
        "accuracy validate: wanted at least 3, measured 2",
        "drop of validate: wanted at most 0.5, measured 0.75",
    ]


def test_what_too_few_calls_bound_is_told_as_such() -> None:
    rough = Estimate(4.9e-3, 4.5e-3, math.inf)
    assert Contract("p99.9<=5ms").judge(Measured(rough)) == [
        "p99.9 latency: wanted at most 5 ms, measured 4.9 ms, but in too few calls or samples to be"
        " sure"
    ]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"min_accuracy": 0.99}, r'min_accuracy must be limits by metric, such as \{"cosine"'),
        ({"min_accuracy": ["cosine"]}, "limits by metric"),
        ({"max_drop": 0.01, "validate": hits}, 'such as {"validate"'),
        ({"min_accuracy": {"cosine": "0.99"}}, "cosine is a number from -1 to 1, got 0.99"),
        ({"min_accuracy": {"cosine": None}}, "cosine is a number from -1 to 1, got None"),
        ({"max_latency": [5]}, "max_latency must be positive, got"),
        ({"max_latency": True}, "max_latency must be positive, got True"),
        ({"min_throughput": "100"}, "min_throughput must be positive, got 100"),
        (
            {"max_drop": {"hits": 0.1, "validate": 0.2}, "validate": hits},
            "one figure, limited",
        ),
        (
            {"min_accuracy": {"validate": 1, "hits": 2}, "validate": hits},
            "one figure, limited",
        ),
        ({"validate": 3}, "validate is a function or package.module:function, got 3"),
    ],
    ids=lambda value: str(value).replace(str(hits), "hits"),
)
def test_limits_of_a_wrong_kind_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Contract(**given)
