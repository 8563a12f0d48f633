"""Who wins a look-up: held against the rule as it is written, over every record there is."""

import statistics
from collections.abc import Iterator, Sequence
from itertools import count
from math import sqrt
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from log_records import TARGET, TOOLS, kernel, record

from hybridc.compiler.log import access, upkeep
from hybridc.compiler.log.lookup import Hit, Miss
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning.trials import history


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TuningLog]:
    with access.open_log(str(tmp_path_factory.mktemp("log") / "log.sqlite")) as opened:
        yield opened


def rule(records: Sequence[Record]) -> tuple[dict[str, int], float] | None:
    """The winner by the rule of docs/tuning-log.md, slow and plain."""
    choices: dict[tuple[tuple[str, int], ...], list[Record]] = {}
    for each in records:
        choices.setdefault(tuple(sorted(each.point.items())), []).append(each)
    timed: list[tuple[tuple[tuple[str, int], ...], float, float]] = []
    for point, group in choices.items():
        if any(each.verdict is Verdict.WRONG for each in group):
            continue
        good = [each.seconds for each in group if each.verdict is Verdict.OK]
        if good:
            middle = statistics.median_low(map(statistics.median, good))
            near = (each for each in good if apart(statistics.median(each), middle) <= 1.12)
            samples = [sample for each in near for sample in each]
            timed.append((point, statistics.median(samples), noise(samples)))
    if not timed:
        return None
    _, fastest, own = min(timed, key=lambda each: each[1])
    tied = [
        (point, seconds)
        for point, seconds, noise_ in timed
        if seconds - fastest <= fastest * min(0.05, max(0.01, own + noise_))
    ]
    point, seconds = min(tied)
    return dict(point), seconds


def apart(one: float, other: float) -> float:
    return max(one, other) / min(one, other)


def noise(samples: Sequence[float]) -> float:
    if len(samples) < 2:
        return 0.025
    low, middle, high = statistics.quantiles(samples, n=4, method="inclusive")
    return 1.57 * (high - low) / sqrt(len(samples)) / middle


# Times of which many are apart by less than five per cent, none by just one.
TIMES = st.integers(0, 40).map(lambda step: 1e-3 * 1.0031**step)
MEASURED = st.tuples(
    st.fixed_dictionaries({"rows": st.integers(1, 12), "vectors": st.sampled_from([1, 2, 10])}),
    st.sampled_from([Verdict.OK] * 8 + [Verdict.WRONG, Verdict.CRASH, Verdict.UNCHECKED]),
    st.lists(TIMES, min_size=1, max_size=6),
)
NUMBERS = count(100)


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(MEASURED, max_size=40))
def test_the_winner_is_that_of_the_rule(
    log: TuningLog, measured: Sequence[tuple[dict[str, int], Verdict, list[float]]]
) -> None:
    mine = kernel(next(NUMBERS))
    records = [
        record(workload=mine.key, point=point, verdict=verdict, seconds=tuple(seconds), seed=n)
        for n, (point, verdict, seconds) in enumerate(measured)
    ]
    log.add(records, (mine, TARGET, TOOLS))
    found = log.lookup(mine.key, TARGET, TOOLS)
    wanted = rule(records)
    if wanted is None:
        assert found == Miss()
    else:
        assert isinstance(found, Hit)
        assert found.record.point == wanted[0]
        assert found.seconds == pytest.approx(wanted[1], rel=1e-12)


def test_a_visit_that_was_disturbed_does_not_outvote_the_others(tmp_path: Path) -> None:
    """Though its samples scatter, and so are more."""
    default = [
        record(point={"rows": 1}, seconds=tuple(1.3e-3 + 1e-5 * n for n in range(40))),
        record(point={"rows": 1}, seconds=(1e-3,) * 6, seed=1),
    ]
    slower = record(point={"rows": 2}, seconds=(1.1e-3,) * 6)
    lucky = [record(point={"rows": 3}, seconds=(s,) * 6) for s in (0.99e-3, 1.07e-3, 1.08e-3)]
    with access.open_log(str(tmp_path / "log.sqlite")) as log:
        log.add([*default, slower, *lucky], (kernel(), TARGET, TOOLS))
        found = log.lookup(kernel().key, TARGET, TOOLS)
        known = {str(t.point): t.seconds for t in history(log.records(), default[0].rule, "warm")}
    assert isinstance(found, Hit)
    assert (found.record.point, found.seconds) == ({"rows": 1}, 1e-3)
    assert known == {"{'rows': 1}": 1e-3, "{'rows': 2}": 1.1e-3, "{'rows': 3}": 1.07e-3}


@pytest.mark.parametrize(
    ("visits", "seconds"),
    [
        ((0.6, *(1.2,) * 6), 1.2),  # luck does not make the others disturbed
        ((1.2, 1.2, 0.6, 1.2), 1.2),
        ((2.0, 1.0, 1.02), 1.01),
        ((2.0, 1.0, 0.6), 1.0),
        ((2.0, 0.6, 1.0, 1.5), 1.0),
        ((1.2, 0.9), 0.9),  # until a third one tells
        ((1.0, 1.1), 1.05),
        ((0.9, 1.0, 1.1), 1.0),  # they agree
    ],
)
def test_neither_a_lucky_nor_a_disturbed_visit_decides(
    visits: Sequence[float], seconds: float, tmp_path: Path
) -> None:
    """A disturbed one has many samples."""
    mine = [
        record(point={"rows": 1}, seconds=(1e-3 * each,) * (40 if each == 2 else 6), seed=n)
        for n, each in enumerate(visits)
    ]
    rival = record(point={"rows": 2}, seconds=(1e-3,) * 6)
    with access.open_log(str(tmp_path / "log.sqlite")) as log:
        log.add([*mine, rival], (kernel(), TARGET, TOOLS))
        found = log.lookup(kernel().key, TARGET, TOOLS)
        known = {str(t.point): t.seconds for t in history(log.records(), mine[0].rule, "warm")}
    assert isinstance(found, Hit)
    assert found.record.point == {"rows": 2 if seconds > 1.005 else 1}
    assert known["{'rows': 1}"] == pytest.approx(1e-3 * seconds)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("median = 1e-9", "altered"),
        ("seconds = 'x'", "is not a record"),
        ("seconds = '[1e-9]'", "altered"),
        ("point = '[1]'", "its point"),
        ('point = \'{"rows":"a"}\'', "its point"),
        ("point = ''", "its point"),
        ('point = \'{"rows":1},{"rows":2}\'', "its point"),
        ("median = NULL", ""),
    ],
)
def test_a_fast_row_that_was_altered_does_not_hide_the_others(
    tmp_path: Path, change: str, said: str
) -> None:
    with access.open_log(str(tmp_path / "log.sqlite")) as log:
        others = [record(point={"rows": n}, seconds=(2e-3 * n,) * 3, seed=n) for n in (1, 2, 3)]
        fast = record(point={"rows": 7}, seconds=(1e-3,) * 3)
        log.add([*others, fast], (kernel(), TARGET, TOOLS))
        with log.writing() as connection:
            statement = f"UPDATE records SET {change} WHERE key = ?"
            connection.exec_driver_sql(statement, (bytes.fromhex(fast.key),))
        found = log.lookup(kernel().key, TARGET, TOOLS)
        assert isinstance(found, Hit)
        assert found.record.point == {"rows": 1}
        assert said in " ".join(found.skipped)


def test_a_damaged_row_of_a_choice_leaves_its_other_rows(tmp_path: Path) -> None:
    with access.open_log(str(tmp_path / "log.sqlite")) as log:
        mine = [record(point={"rows": 1}, seconds=(1e-3,) * 3, seed=n) for n in range(3)]
        slower = record(point={"rows": 0}, seconds=(2e-3,) * 3)
        log.add([*mine, slower], (kernel(), TARGET, TOOLS))
        with log.writing() as connection:
            connection.exec_driver_sql(
                "UPDATE records SET seconds = 'x', median = 0.0009 WHERE seed = 1"
            )
        found = log.lookup(kernel().key, TARGET, TOOLS)
        assert isinstance(found, Hit)
        assert found.record.point == {"rows": 1}
        assert len(found.skipped) == 1


@pytest.mark.parametrize(
    ("visits", "kept"),
    [
        ([(1, 1.0, 1), (2, 0.6, 1), (2, 1.0, 2), (2, 1.2, 3)], {1, 2}),  # one was lucky
        ([(1, 1.0, 1), (2, 0.6, 1), (2, 1.5, 2), (2, 1.5, 3)], {1}),  # and would beat the winner
        ([(1, 1.0, 1), (2, 1.5, 1), (2, 1.5, 2), (2, 0.6, 2e9)], {1, 2}),  # the others are old
        ([(1, 1.0, 1), (2, 0.6, 1), (2, None, 2)], {1, 2}),  # it computes something else
    ],
)
@pytest.mark.parametrize("limit", [{"oldest": 86400.0}, {"largest": 1}])
def test_the_winner_stays_where_garbage_goes(
    visits: Sequence[tuple[int, float | None, float]],
    kept: set[int],
    limit: dict[str, Any],
    tmp_path: Path,
) -> None:
    """Of points with milliseconds and when they were measured; None where the answer was wrong."""
    records = [
        record(
            point={"rows": rows},
            when=float(when),
            seed=n,
            **{"verdict": Verdict.WRONG} if time is None else {"seconds": (1e-3 * time,) * 3},
        )
        for n, (rows, time, when) in enumerate(visits)
    ]
    with access.open_log(str(tmp_path / "log.sqlite")) as log:
        log.add(records, (kernel(), TARGET, TOOLS))
        before = log.lookup(kernel().key, TARGET, TOOLS)
        upkeep.collect(log, **limit)
        found = log.lookup(kernel().key, TARGET, TOOLS)
        left = {each.point["rows"] for each in log.records()}
    assert isinstance(before, Hit)
    assert isinstance(found, Hit)
    assert (found.record.point, found.seconds) == (before.record.point, before.seconds)
    assert left == kept if "oldest" in limit else left <= kept
