"""The tuning log in use: compilations by it, and rebuilding by a lock."""

import dataclasses
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from filled_logs import fill, model

from hybridc.compiler import driver
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError, LogError, MissingRecordError
from hybridc.compiler.kernel_record import FAULTY
from hybridc.compiler.log import access, lock
from hybridc.compiler.log.advice import LogAdvice
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.record import Record, Verdict, broken


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def tuned(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which for each kernel another point than the default is fastest."""
    path = tmp_path_factory.mktemp("log") / "log.sqlite"
    fill(path, source)
    return path


def test_the_winners_of_the_log_are_compiled(
    source: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRIDC_CACHE", str(tmp_path))  # where no other test left a log
    plain = driver.compile_source(source, Options())
    by_log = driver.compile_source(source, Options(log=str(tuned), frozen=True))
    with access.open_log(str(tuned), readonly=True) as log:
        won = {each.workload: each.point for each in log.records() if each.seconds[0] == 1e-6}
    for kernel, entry_ in by_log.artifact.lock.items():
        assert entry_["point"] == won[entry_["workload"]]
        assert entry_["workload"] == plain.artifact.lock[kernel]["workload"]
    assert by_log.artifact.lock != plain.artifact.lock
    assert plain.report.records is None
    assert by_log.report.records is not None
    assert by_log.report.records["hits"] == len(won) > 1


def test_a_default_that_was_measured_to_be_wrong_is_not_taken(
    source: Path, tuned: Path, tmp_path: Path
) -> None:
    """Where the log knows nothing better, another rule has the kernel, and a line says so."""
    path, empty = str(tmp_path / "log.sqlite"), str(tmp_path / "empty.sqlite")
    access.open_log(empty).close()
    with access.open_log(str(tuned), readonly=True) as log, access.open_log(path) as other:
        defaults = [each for each in log.records() if each.seconds[0] == 1e-3]
        wrong = [replace(each, verdict=Verdict.WRONG, seconds=()) for each in defaults]
        assert other.add(wrong, log.described()).new == len(defaults)
    usual = driver.compile_source(source, Options(log=empty))
    found = driver.compile_source(source, Options(log=path))
    for kernel, before in zip(found.report.kernels, usual.report.kernels, strict=True):
        if before.workload in {each.workload for each in wrong}:
            assert kernel.refused[before.rule] == "its default was measured to fail: wrong"
    told = [line for line in found.report.summary().splitlines() if line.startswith(FAULTY)]
    assert len(told) == len(wrong)
    assert "computes something wrong; it is left to another rule; please report" in told[0]


def test_a_crash_is_no_fault_of_what_also_ran() -> None:
    assert broken({Verdict.CRASH, Verdict.OK}) is None
    assert broken({Verdict.CRASH, Verdict.TIMEOUT}) is Verdict.CRASH
    assert broken({Verdict.WRONG, Verdict.OK}) is Verdict.WRONG
    assert broken({Verdict.TIMEOUT, Verdict.UNCHECKED}) is None


def test_a_lock_builds_the_same_bytes_without_a_log(
    source: Path, tuned: Path, tmp_path: Path
) -> None:
    first, second, third = (tmp_path / f"{name}.hyb" for name in "abc")
    driver.compile_source(source, Options(log=str(tuned))).artifact.save(first)
    driver.compile_source(source, Options(lock=first)).artifact.save(second)
    assert first.read_bytes() == second.read_bytes()
    lock = tmp_path / "schedule.lock"
    lock.write_text(json.dumps(driver.compile_source(source, Options(lock=first)).artifact.lock))
    driver.compile_source(source, Options(lock=lock)).artifact.save(third)
    assert first.read_bytes() == third.read_bytes()


@pytest.mark.parametrize("dtype", ["int8-dynamic", "bf16"])
def test_a_lock_says_which_precision_it_was_written_for(
    source: Path, tmp_path: Path, dtype: str
) -> None:
    """Kernels need not: those of fp32 read rounded weights on CPUs that are slow in 16 bits."""
    options = Options(dtype=dtype, target="avx512", verify="off")
    made = driver.compile_source(source, options).artifact
    made.save(tmp_path / "made.hyb")
    left_open = replace(options, dtype="auto", lock=tmp_path / "made.hyb")
    again = driver.compile_source(source, left_open)
    assert again.report.precision == dtype
    assert again.artifact.pipeline == made.pipeline
    again.artifact.save(tmp_path / "again.hyb")
    assert (tmp_path / "again.hyb").read_bytes() == (tmp_path / "made.hyb").read_bytes()
    told = {"quantize{keep=matmul-1}": ("int8", ("matmul-1",)), "fuse,nosuch": None}
    for text, precision in told.items():
        replace(made, pipeline=text).save(tmp_path / "made.hyb")
        assert lock.precision(tmp_path / "made.hyb") == precision


def test_a_lock_of_other_conditions_is_refused_or_told(source: Path, tmp_path: Path) -> None:
    """Byte for byte again: that is for the threads and vectors that it was made for."""
    made, lock = tmp_path / "made.hyb", tmp_path / "schedule.lock"
    artifact = driver.compile_source(source, Options(threads=2)).artifact
    artifact.save(made)
    for near in ("tools", "never"):
        with pytest.raises(
            MissingRecordError, match=r"made\.hyb .* threads: 2 instead of 1; .*any"
        ):
            driver.compile_source(source, Options(lock=made, threads=1, near=near))
    taken = driver.compile_source(source, Options(lock=made, threads=1, near="any"))
    assert "made.hyb has them, though threads: 2 instead of 1" in taken.report.summary()
    assert taken.artifact.lock == artifact.lock
    older = replace(artifact, toolchain={**artifact.toolchain, "hybridc": "0.0.1"})
    older.save(made)
    told = driver.compile_source(source, Options(lock=made, threads=2)).report.summary()
    assert "though toolchain.hybridc: 0.0.1 instead of " in told
    with pytest.raises(MissingRecordError, match=r"toolchain\.hybridc"):
        driver.compile_source(source, Options(lock=made, threads=2, near="never"))
    lock.write_text(json.dumps(artifact.lock))
    told = driver.compile_source(source, Options(lock=lock, threads=1)).report.summary()
    unknown = "its target and precision are unknown (give --dtype, or the artifact)"
    assert f"schedule.lock has them, though {unknown}" in told


def test_a_lock_for_a_target_that_nobody_knows_is_refused(source: Path, tmp_path: Path) -> None:
    """Hashes show that a file is whole, not that it says what it should."""
    made = driver.compile_source(source, Options()).artifact
    for told in ({}, {"cpu": "x86-64"}):
        replace(made, target=told).save(tmp_path / "made.hyb")
        with pytest.raises(InputError, match=r"made\.hyb tells no target that is known"):
            driver.compile_source(source, Options(lock=tmp_path / "made.hyb"))


def test_a_lock_of_another_model_does_not_fit(source: Path, tmp_path: Path) -> None:
    other = model(tmp_path / "other.onnx", columns=56)
    driver.compile_source(other, Options()).artifact.save(tmp_path / "other.hyb")
    with pytest.raises(MissingRecordError, match="no kernel that computes the same"):
        driver.compile_source(source, Options(lock=tmp_path / "other.hyb"))


@pytest.mark.parametrize(
    "text", ["[]", "no", '{"a": 1}', '{"a": {"rule": "x", "point": {"k": 0.5}}}']
)
def test_what_is_no_lock_is_refused(source: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "lock").write_text(text)
    with pytest.raises(InputError, match="lock"):
        driver.compile_source(source, Options(lock=tmp_path / "lock"))
    with pytest.raises(InputError, match="without log"):
        driver.compile_source(source, Options(lock=tmp_path / "lock", frozen=True))


def test_a_record_whose_rule_or_point_is_gone_is_passed_over(
    source: Path, tuned: Path, tmp_path: Path
) -> None:
    path = tmp_path / "log.sqlite"
    with access.open_log(str(tuned)) as old, access.open_log(str(path)) as log:
        records = list(old.records())
        gone = [replaced(each, rule="gone") for each in records]
        strange = [replaced(each, point={"knob": 1}) for each in records]
        object.__setattr__(log, "rules", None)  # as a log whose rules were installed then
        log.add([*records, *gone, *strange], old.described())
    outcome = driver.compile_source(source, Options(log=str(path), frozen=True))
    assert outcome.report.records is not None
    skipped = " ".join(outcome.report.records["skipped"])
    assert "no rule is named 'gone'" in skipped
    assert "no longer a point of its space" in skipped
    assert (
        outcome.artifact.lock
        == driver.compile_source(source, Options(log=str(tuned))).artifact.lock
    )


def replaced(record: Record, **given: Any) -> Record:
    return dataclasses.replace(record, seconds=(1e-9,), **given)


def test_a_kernel_that_leaves_nothing_to_choose_misses_nothing(tmp_path: Path) -> None:
    with access.open_log(str(tmp_path / "log.sqlite")) as log:
        advice = LogAdvice(log, Described.of("target", {}), Described.of("toolchain", {}))
        for kernel in ("plain", "open"):
            assert advice.choose(kernel, "0" * 32, lambda *_: None, "warm") is None
        advice.missed("open")
        assert (advice.describe()["misses"], advice.describe()["defaults"]) == (1, ["open"])


def test_near_records_count_as_the_policy_says(source: Path, tuned: Path) -> None:
    def hits(**given: Any) -> tuple[int, int]:
        records = driver.compile_source(
            source, Options(log=str(tuned), threads=1, **given)
        ).report.records
        assert records is not None
        return records["near"], records["misses"]

    assert hits(near="any")[0] > 0 == hits(near="any")[1]
    assert hits(near="tools")[0] == 0 == hits(near="never")[0]
    with pytest.raises(MissingRecordError, match="lacks records of"):
        hits(near="any", frozen=True)


def test_what_was_measured_with_cold_caches_is_used(
    source: Path, tuned: Path, tmp_path: Path
) -> None:
    path = tmp_path / "cold.sqlite"
    with access.open_log(str(tuned), readonly=True) as warm, access.open_log(str(path)) as log:
        cold = (dataclasses.replace(each, mode="cold") for each in warm.records())
        log.add(cold, warm.described())
    by_cold, by_warm = (
        driver.compile_source(source, Options(log=str(log), frozen=True, near="never"))
        for log in (path, tuned)
    )
    assert by_cold.artifact.lock == by_warm.artifact.lock
    assert (by_cold.report.records or {})["near"] > 1


def test_a_default_log_that_is_damaged_stops_nobody(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log.sqlite"
    path.write_text("garbage")
    monkeypatch.setenv("HYBRIDC_LOG", str(path))
    assert "no tuning log" in driver.compile_source(source, Options()).report.summary()
    with pytest.raises(LogError):
        driver.compile_source(source, Options(frozen=True))
    with pytest.raises(LogError):
        driver.compile_source(source, Options(log=str(path)))
    assert path.read_text() == "garbage"


def test_the_default_log_is_used(
    source: Path, tuned: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYBRIDC_LOG", str(tuned))
    assert "hits" in driver.compile_source(source, Options()).report.summary()
