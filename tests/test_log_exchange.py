"""Logs in and out of files and of each other: what was in stays in, and merging is a union."""

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from log_records import TARGET, TOOLS, kernel, keys, record, sweep
from tvm import te
from tvm.s_tir import Schedule, meta_schedule
from tvm.s_tir.meta_schedule.database import JSONDatabase, TuningRecord

from hybridc.compiler import target as targets
from hybridc.compiler.errors import InputError
from hybridc.compiler.log import access, exchange
from hybridc.compiler.log import keys as log_keys
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.log.store import TuningLog

DESCRIBED = (kernel(), kernel(9), TARGET, TOOLS)
CPU = {"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 2}

verdicts = st.sampled_from(Verdict)
times = st.lists(st.floats(1e-9, 1e3), min_size=1, max_size=4).map(tuple)
records = st.builds(
    record,
    workload=st.sampled_from([kernel().key, kernel(9).key]),
    point=st.dictionaries(st.sampled_from(["rows", "µ", 'a"b']), st.integers(-9, 9)),
    verdict=verdicts,
    seconds=times,
    mode=st.sampled_from(["warm", "cold"]),
    predicted=st.none() | st.floats(1e-9, 1e3),
    who=st.text(st.characters(codec="utf-8", categories=["L", "N", "P"]), min_size=1, max_size=9),
    seed=st.integers(-(2**63) + 1, 2**63 - 1),
)


def filled(folder: Path, name: str, content: list[Record]) -> TuningLog:
    log = access.open_log(str(folder / f"{name}.sqlite"))
    log.add(content, DESCRIBED)
    return log


@settings(max_examples=15, deadline=None)
@given(st.lists(records, max_size=6), st.lists(records, max_size=6), st.booleans())
def test_merging_is_a_union_in_any_order_and_number(
    one: list[Record], other: list[Record], shared: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        logs = [filled(here, "a", one), filled(here, "b", [*other, *(one if shared else [])])]
        for order in (logs, logs[::-1], [*logs, *logs]):
            with access.open_log(str(here / "into.sqlite")) as into:
                for log in order:
                    exchange.merge(into, log)
                assert keys(into) == keys(logs[0]) | keys(logs[1])
            for path in here.glob("into*"):
                path.unlink()
        exchange.merge(logs[0], logs[1])
        exchange.merge(logs[1], logs[0])
        assert keys(logs[0]) == keys(logs[1])
        for log in logs:
            log.close()


@settings(max_examples=10, deadline=None)
@given(st.lists(records, max_size=8))
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_what_is_exported_imports_as_it_was(suffix: str, content: list[Record]) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"log.{suffix}"
        with filled(Path(folder), "a", content) as log:
            count, faults = exchange.save(log, path)
            assert (count, faults.count) == (len(log), 0)
            wanted = keys(log)
        with access.open_log(str(Path(folder) / "b.sqlite")) as log:
            assert exchange.load(log, path).new == count
            assert exchange.load(log, path).known == count
            assert keys(log) == wanted


def test_a_torn_file_gives_what_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with filled(tmp_path, "a", sweep(10)) as log:
        exchange.save(log, path)
    lines = path.read_bytes().splitlines(keepends=True)
    lines[5] = b"\xff\xfe garbage\n"
    path.write_bytes(b"".join(lines)[:-20])
    with access.open_log(str(tmp_path / "b.sqlite")) as log:
        added = exchange.load(log, path)
    assert (added.new, added.faults.count) == (8, 2)
    assert "line 6" in added.faults.reasons[0]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"describes": "planet", "data": 1}, "no field 'data'"),
        ([], "a record is a JSON object"),
        ({"workload": "x"}, "not a record"),
        ({**record().to_json(), "verdict": "fine"}, "Verdict"),
        ({**record().to_json(), "seconds": ["1"]}, "seconds"),
        ({**record().to_json(), "seconds": 3}, "not a record"),
        ({**record().to_json(), "extra": 3}, "no field 'extra'"),
    ],
)
def test_a_bad_line_is_skipped_and_told(tmp_path: Path, line: Any, said: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(f"{json.dumps(line)}\n")
    with access.open_log(str(tmp_path / "b.sqlite")) as log:
        added = exchange.load(log, path)
    assert (added.new, added.faults.count) == (0, 1)
    assert said in added.faults.reasons[0]


def test_what_is_no_table_of_records_is_refused(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    tables = pytest.importorskip("pyarrow.parquet")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    tables.write_table(arrow.table({"x": [1]}), tmp_path / "b.parquet")
    with access.open_log(str(tmp_path / "log.sqlite")) as log:
        for name, said in (("a", "not a Parquet file"), ("b", "not of records")):
            with pytest.raises(InputError, match=said):
                exchange.load(log, tmp_path / f"{name}.parquet")


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="JSON Lines"):
        exchange.form_of(tmp_path / "log.csv")


def product(depth: int) -> Any:
    """A matrix product as MetaSchedule is given one."""
    a, b = te.placeholder((16, depth), name="A"), te.placeholder((depth, 16), name="B")
    k = te.reduce_axis((0, depth))
    c = te.compute((16, 16), lambda i, j: te.sum(a[i, k] * b[k, j], axis=k), name="C")
    return tvm.IRModule({"main": te.create_prim_func([a, b, c])})


def tvm_database(folder: Path, target: Any = CPU) -> JSONDatabase:
    """A database that TVM wrote: two workloads, four records, two of which failed."""
    folder.mkdir()
    database = JSONDatabase(work_dir=str(folder))
    for module in (product(8), product(32)):
        workload = database.commit_workload(module)
        for tile, seconds in ((4, 1e-3), (8, 1e10)):
            schedule: Any = Schedule(module)
            loops = schedule.get_loops(schedule.get_sblock("C"))
            schedule.split(loops[2], [None, tile])
            info = meta_schedule.arg_info.ArgInfo.from_prim_func(module["main"])
            made = TuningRecord(
                schedule.trace, workload, [seconds], tvm.target.Target(target), info
            )
            database.commit_tuning_record(made)
    return database


def test_a_database_of_tvm_comes_in_and_goes_out(tmp_path: Path) -> None:
    written = tvm_database(tmp_path / "in")
    with access.open_log(str(tmp_path / "log.sqlite")) as log:
        added = exchange.load(log, tmp_path / "in")
        assert (added.new, added.faults.reasons) == (4, [])
        assert exchange.load(log, tmp_path / "in").known == 4
        found = list(log.records(workload=log_keys.of_kernel(product(8)["main"]).key))
        assert {each.verdict for each in found} == {Verdict.UNCHECKED, Verdict.CRASH}
        assert [each.seconds for each in found if each.seconds] == [(1e-3,)]
        log.add(sweep(2), DESCRIBED)
        (tmp_path / "out").mkdir()
        count, faults = exchange.save(log, tmp_path / "out")
        assert (count, faults.count) == (4, 2)
        assert "has a point" in faults.reasons[0]
    again: Any = JSONDatabase(work_dir=str(tmp_path / "out"))
    assert len(again) == len(written) == 4
    for module in (product(8), product(32)):
        best = again.query_tuning_record(module, tvm.target.Target(CPU), "main")
        assert [float(each) for each in best.run_secs] == [1e-3]


def test_a_cpu_that_tvm_tells_feature_by_feature_is_one_of_its_own(tmp_path: Path) -> None:
    tvm_database(tmp_path / "in", {"kind": "llvm", "mattr": ["+avx2"], "num-cores": 2})
    tvm_database(tmp_path / "plain", {"kind": "llvm", "num-cores": 2})
    with access.open_log(str(tmp_path / "log.sqlite")) as log:
        for folder in ("in", "plain"):
            added = exchange.load(log, tmp_path / folder)
            assert (added.new, added.faults.reasons) == (4, [])
        assert len({each.target for each in log.records()}) == 2
        known = {**CPU, "mattr": ["+avx512f"]}
        tvm_database(tmp_path / "known", known)
        exchange.load(log, tmp_path / "known")
        wide = log_keys.of_target(targets.parse(json.dumps(known)))
        assert wide.key in {each.target for each in log.records()}


def test_a_database_that_two_writers_spoilt_gives_what_fits(tmp_path: Path) -> None:
    tvm_database(tmp_path / "in")
    path = tmp_path / "in" / "database_tuning_record.json"
    lines = path.read_text().splitlines()
    strange = json.loads(lines[0])
    strange[1][0][0][0][2] = ["D", "main"]  # a block that the workload lacks
    spoilt = [json.dumps(strange), "[7, []]", lines[0][:40], "[" * 10**5]
    path.write_text("\n".join([*lines, *spoilt]))
    with access.open_log(str(tmp_path / "log.sqlite")) as log:
        added = exchange.load(log, tmp_path / "in")
    assert (added.new, added.faults.count) == (4, 4)
    assert any("does not fit" in reason for reason in added.faults.reasons)


def test_a_directory_without_a_database_is_refused(tmp_path: Path) -> None:
    with (
        access.open_log(str(tmp_path / "log.sqlite")) as log,
        pytest.raises(InputError, match="not contain a TVM database"),
    ):
        exchange.load(log, tmp_path)
