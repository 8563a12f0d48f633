"""The tuning log in SQLite and in PostgreSQL: what goes in, what comes out, and who wins."""

import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import postgres
import pytest
from log_records import TARGET, TOOLS, kernel, keys, record, sweep
from sqlalchemy import create_engine, text

from hybridc.compiler.errors import LogError
from hybridc.compiler.log import access, claims, connect, upkeep
from hybridc.compiler.log.conditions import Difference
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.lookup import Hit, Miss, Near
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.log.store import TuningLog

DESCRIBED = (kernel(), TARGET, TOOLS)


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    with postgres.server() as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[TuningLog]:
    if request.param == "sqlite":
        url = str(tmp_path / "log.sqlite")
    else:
        url = request.getfixturevalue("postgresql")
        empty(url)
    with access.open_log(url) as opened:
        yield opened


def empty(url: str) -> None:
    engine = create_engine(connect.parse(url), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()


def lookup(log: TuningLog, **given: Any) -> Hit | Near | Miss:
    return log.lookup(kernel().key, TARGET, TOOLS, **given)


def test_a_record_comes_back_as_it_went_in(log: TuningLog) -> None:
    given = record(
        seconds=(0.1 + 0.2, 1e-9, 123.456), predicted=math.pi, mode="cold", who="Ångström", seed=-3
    )
    assert log.add([given], DESCRIBED).new == 1
    assert list(log.records()) == [given]
    assert list(log.records(workload=kernel().key, target=TARGET.key)) == [given]
    assert list(log.records(workload=kernel(9).key)) == []
    assert {each.key for each in log.described()} == {each.key for each in DESCRIBED}


def test_a_record_that_is_there_stays_one(log: TuningLog) -> None:
    records = sweep(30)
    assert log.add(records, DESCRIBED).new == 30
    again = log.add([*records, record(seed=1)], DESCRIBED)
    assert (again.new, again.known, len(log)) == (1, 30, 31)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seconds": (math.nan,)}, "seconds"),
        ({"seconds": (math.inf,)}, "seconds"),
        ({"seconds": (0.0,)}, "seconds"),
        ({"seconds": (-1.0,)}, "seconds"),
        ({"seconds": ()}, "seconds is empty"),
        ({"predicted": math.nan}, "predicted"),
        ({"verdict": "great"}, "verdict"),
        ({"rule": "desne"}, "no rule is named 'desne'"),
        ({"rule": ""}, "rule"),
        ({"point": {"rows": 1.5}}, "point"),
        ({"point": {"rows": 2**70}}, "point"),
        ({"workload": "abc"}, "workload"),
        ({"workload": "0" * 64}, "nobody has described"),
        ({"when": math.nan}, "when"),
        ({"who": "a\nb"}, "who"),
        ({"trace": "a\0b"}, "trace"),
    ],
)
def test_an_unfit_record_is_skipped_and_counted(
    tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with access.open_log(str(tmp_path / "log.sqlite")) as log:
        added = log.add([record(), record(**given), record(seed=1)], DESCRIBED)
        assert (added.new, added.faults.count, len(log)) == (2, 1, 2)
        assert said in added.faults.reasons[0]


def test_a_row_that_was_altered_is_passed_over_and_told(log: TuningLog) -> None:
    log.add(sweep(3), DESCRIBED)
    with log.writing() as connection:
        connection.execute(text("UPDATE records SET seconds = '[1e-9]' WHERE median < 0.00105"))
        connection.execute(text("UPDATE records SET point = 'no' WHERE median > 0.0013"))
    found = lookup(log)
    assert isinstance(found, Hit)
    assert found.record.point == {"rows": 1}
    assert "altered" in " ".join(found.skipped)
    assert [each.point for each in log.records()] == [{"rows": 1}]


def test_the_fastest_wins(log: TuningLog) -> None:
    log.add(reversed(sweep(200)), DESCRIBED)
    found = lookup(log)
    assert isinstance(found, Hit)
    assert found.record.point == {"rows": 0}
    assert found.seconds == pytest.approx(1e-3)


def test_within_the_noise_the_smallest_point_wins(log: TuningLog) -> None:
    log.add(
        [
            record(point={"rows": 2}, seconds=(1.00e-3, 1.01e-3, 1.02e-3)),
            record(point={"rows": 1}, seconds=(1.01e-3, 1.02e-3, 1.00e-3)),
            record(point={"rows": 0}, seconds=(1.20e-3, 1.20e-3, 1.20e-3)),
        ],
        DESCRIBED,
    )
    found = lookup(log)
    assert isinstance(found, Hit)
    assert found.record.point == {"rows": 1}


def test_one_lucky_sample_does_not_win(log: TuningLog) -> None:
    usual = [record(point={"rows": 1}, seconds=(s,) * 9) for s in (2e-3, 2.1e-3)]
    lucky = record(point={"rows": 1}, seconds=(1e-4,), seed=2)
    other = record(point={"rows": 2}, seconds=(1.3e-3,) * 5)
    log.add([*usual, lucky, other], DESCRIBED)
    found = lookup(log)
    assert isinstance(found, Hit)
    assert found.record.point == {"rows": 2}


@pytest.mark.parametrize("verdict", [each for each in Verdict if each is not Verdict.OK])
def test_only_what_was_checked_wins(log: TuningLog, verdict: Verdict) -> None:
    log.add([record(verdict=verdict, seconds=(1e-9,)), record(point={"rows": 2})], DESCRIBED)
    found = lookup(log)
    assert isinstance(found, Hit)
    assert found.record.point == {"rows": 2}


def test_a_choice_that_was_wrong_once_never_wins(log: TuningLog) -> None:
    wrong = record(point={"rows": 0}, verdict=Verdict.WRONG)
    log.add([*sweep(2), wrong], DESCRIBED)
    found = lookup(log)
    assert isinstance(found, Hit)
    assert found.record.point == {"rows": 1}


def test_what_cannot_be_used_is_passed_over_and_told(log: TuningLog) -> None:
    log.add(sweep(50), DESCRIBED)
    found = lookup(log, usable=lambda each: "too few" if each.point["rows"] < 20 else None)
    assert isinstance(found, Hit)
    assert found.record.point == {"rows": 20}
    assert found.skipped == ("too few",)
    assert lookup(log, usable=lambda _: "never") == Miss(("never",))


def test_a_near_hit_names_what_differs(log: TuningLog) -> None:
    log.add([record()], DESCRIBED)
    target = Described.of("target", {**TARGET.data, "threads": 8, "features": ["avx2", "fma"]})
    tools = Described.of("toolchain", {**TOOLS.data, "tvm": "2.0"})
    found = log.lookup(kernel().key, target, tools, mode="cold")
    assert isinstance(found, Near)
    assert {each.name for each in found.differs} == {
        *("threads", "features", "toolchain.tvm", "mode")
    }
    assert {"threads: 2 instead of 8", "features: -fma"} <= set(map(str, found.differs))


def test_differences_are_told_with_their_units() -> None:
    told = {
        "l2": (2**19, 2**20, "l2: 1024 KiB instead of 512 KiB"),
        "machine.hertz": (31, 32, "machine.hertz: about 4.3 GHz instead of about 2.1 GHz"),
        "machine.parallel_cycles": (
            *(10, 12),
            "machine.parallel_cycles: about 4096 cycles instead of about 1024 cycles",
        ),
        "vector_bits": (256, 512, "vector_bits: 512 bits instead of 256 bits"),
        "toolchain.tvm": ("1", None, "toolchain.tvm: nothing instead of 1"),
    }
    for name, (wanted, found, said) in told.items():
        assert str(Difference(name, wanted, found)) == said


def test_the_nearest_conditions_win(log: TuningLog) -> None:
    other = Described.of("target", {**TARGET.data, "threads": 8})
    tools = Described.of("toolchain", {**TOOLS.data, "tvm": "2.0"})
    fast = record(target=other.key, point={"rows": 1}, seconds=(1e-9,))
    log.add([fast, record(toolchain=tools.key, point={"rows": 2})], (*DESCRIBED, other, tools))
    found = lookup(log)
    assert isinstance(found, Near)
    assert found.record.point == {"rows": 2}
    assert [each.name for each in found.differs] == ["toolchain.tvm"]


def test_a_kernel_that_nobody_measured_is_a_miss(log: TuningLog) -> None:
    log.add([record()], DESCRIBED)
    assert log.lookup(kernel(9).key, TARGET, TOOLS) == Miss()


def test_claims_expire_and_can_be_renewed(log: TuningLog) -> None:
    work = [claims.name(kernel().key, "dense", {"rows": row}) for row in range(3)]
    assert set(log.claim(work, "one", 60)) == set(work)
    assert log.claim(work, "two", 60) == []
    assert set(log.claim(work, "one", 0.1)) == set(work)
    assert set(log.claim(work[:2], "one", 60)) == set(work[:2])
    time.sleep(0.2)
    assert log.claim(work, "two", 60) == [work[2]]
    log.release(work, "one")
    assert set(log.claim(work, "two", 60)) == set(work)


def test_a_claim_from_before_the_clock_was_set_back_blocks_nobody(log: TuningLog) -> None:
    work = [claims.name(kernel().key, "dense")]
    assert log.claim(work, "one", 3600.0) == work  # as if it were an hour later
    assert log.claim(work, "two", 20.0) == work
    assert log.claim(work, "one", 20.0) == []


def test_of_many_claimants_one_gets_the_work(log: TuningLog) -> None:
    work = [claims.name("batch", number) for number in range(20)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda owner: log.claim(work, f"owner {owner}", 60), range(8)))
    assert sorted(name for names in got for name in names) == sorted(work)


def test_many_writers_of_the_same_records_agree(log: TuningLog) -> None:
    records = sweep(300)
    with ThreadPoolExecutor(6) as pool:
        added = list(pool.map(lambda _: log.add(records, DESCRIBED), range(6)))
    assert sum(each.new for each in added) == 300
    assert keys(log) == {each.key for each in records}


def test_garbage_is_what_cannot_win(log: TuningLog) -> None:
    old, wrong = sweep(20, when=1.0), record(verdict=Verdict.WRONG, when=1.0, point={"rows": 99})
    recent = record(point={"rows": 50}, seconds=(1.0,), when=time.time())
    unused = kernel(7)
    log.add([*old, wrong, recent], (*DESCRIBED, unused))
    done = upkeep.collect(log, oldest=86400)
    left = list(log.records())
    assert {each.point["rows"] for each in left} == {0, 50, 99}
    assert (done.records, done.descriptions) == (19, 1)
    assert upkeep.collect(log, oldest=86400).records == 0


def slower_and_slower(count: int) -> list[Record]:
    """Records of so many points."""
    return [
        record(point={"rows": n}, seed=n, when=1.0 + n, seconds=(1.0 + n,)) for n in range(count)
    ]


def test_a_log_is_kept_to_its_size(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with access.open_log(str(path)) as log:
        log.add(slower_and_slower(5000), DESCRIBED)
        done = upkeep.collect(log, largest=300_000)
        assert done.after <= 300_000 < done.before
        assert min(each.seed for each in log.records()) == 0  # the winner, old as it is
        assert max(each.seed for each in log.records()) == 4999
    assert path.stat().st_size <= 300_000


def test_the_password_of_a_log_is_not_shown(log: TuningLog) -> None:
    assert "secret" not in log.name
    with pytest.raises(LogError) as caught, log.writing() as connection:
        connection.execute(text("SELECT nothing FROM nowhere"))
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_more_is_removed_than_is_above_the_size(log: TuningLog) -> None:
    log.add(slower_and_slower(3000), DESCRIBED)
    upkeep.collect(log, largest=upkeep.size(log) * 3 // 4)
    assert len(log) > 1500  # of 3000; a quarter of the size is some more records


def test_record_is_a_value() -> None:
    assert record() == record()
    assert record().key == record().key != record(seed=1).key
    assert isinstance(record(), Record)
