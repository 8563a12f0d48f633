"""The tuning log in use: compilations by it, rebuilding by a lock, and the verb `log`."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper, numpy_helper

from hybridc.cli import main as entry
from hybridc.compiler import driver, frontend, pipeline, plugin, target
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError, LogError, MissingRecordError
from hybridc.compiler.interfaces import Context, NotApplicable, Point, ScheduleRule, Space
from hybridc.compiler.log import access, keys
from hybridc.compiler.log.record import Record, Verdict

Run = Callable[..., tuple[int, str, str]]


def model(path: Path, columns: int = 40) -> Path:
    """`relu(x @ w)`, then a softmax over the rows."""
    rng = np.random.default_rng(0)
    weight = numpy_helper.from_array(rng.standard_normal((48, columns)).astype("float32"), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("Relu", ["m"], ["r"]),
        helper.make_node("Softmax", ["r"], ["y"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [6, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [6, columns])],
        [weight],
    )
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


class Watch:
    """Advice that knows nothing and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: dict[str, str] = {}

    def choose(self, kernel: str, workload: str, usable: Any) -> tuple[str, Point] | None:
        self.asked[kernel] = workload
        return None

    def missed(self, kernel: str) -> None:
        pass


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model(tmp_path_factory.mktemp("model") / "small.onnx")


@pytest.fixture(scope="module")
def tuned(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log in which for each kernel another point than the default is fastest."""
    path = tmp_path_factory.mktemp("log") / "log.sqlite"
    fill(path, source)
    return path


def another(space: Space, default: Point) -> Point:
    """A point with another value of every knob that has one."""
    others = {knob: [v for v in values if v != default[knob]] for knob, values in space.items()}
    return {knob: (others[knob] or [default[knob]])[0] for knob in space}


def taken(func: Any, context: Context) -> tuple[ScheduleRule, Any]:
    """The first rule that takes a kernel, and its match."""
    offers = ((rule, rule.match(func, context.target)) for rule in context.rules)
    return next((rule, match) for rule, match in offers if not isinstance(match, NotApplicable))


def fill(path: Path, source: Path, threads: int | None = None) -> None:
    cpu = target.parse("cpu", threads)
    context = Context(cpu, pipeline.rules())
    steps = pipeline.parse("default")
    at = [plugin.name_of(type(step)) for step in steps].index("schedule")
    module = pipeline.run(steps[:at], frontend.load(source).module, context)
    tools, place = keys.of_toolchain(), keys.of_target(cpu)
    described, records = [tools, place], list[Record]()
    for func in module.functions.values():
        if not hasattr(func, "params") or "Function" in type(func).__name__:
            continue
        workload = keys.of_kernel(func)
        described.append(workload)
        rule, match = taken(func, context)
        default = rule.default(match, cpu)
        other = another(rule.knobs(match), default)
        for point, seconds in ((other, 1e-6), (dict(default), 1e-3)):
            records.append(
                Record(
                    workload=workload.key,
                    target=place.key,
                    toolchain=tools.key,
                    rule=plugin.name_of(type(rule)),
                    point=point,
                    verdict=Verdict.OK,
                    seconds=(seconds,) * 3,
                    when=1.7e9,
                    who="tester",
                    seed=0,
                )
            )
    with access.open_log(str(path)) as log:
        assert log.add(records, described).faults.count == 0


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
    with pytest.raises(InputError, match="without a log"):
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
    assert "no point of its space any more" in skipped
    assert (
        outcome.artifact.lock
        == driver.compile_source(source, Options(log=str(tuned))).artifact.lock
    )


def replaced(record: Record, **given: Any) -> Record:
    return dataclasses.replace(record, seconds=(1e-9,), **given)


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


@pytest.fixture
def call(tuned: Path) -> Run:
    def run(*arguments: object) -> tuple[int, str, str]:
        done = CliRunner().invoke(
            entry.commands, ["log", *map(str, arguments), "--log", str(tuned)]
        )
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            return getattr(done.exception, "exit_code", 1), "", str(done.exception)
        return done.exit_code, done.stdout, done.stderr

    return run


def test_ls_and_show(call: Run) -> None:
    code, out, _ = call("ls", "--json", "--limit", 3)
    rows = json.loads(out)
    assert (code, len(rows)) == (0, 3)
    assert rows[0]["workload"][:12] in call("ls")[1]
    shown = json.loads(call("show", rows[0]["workload"][:8], "--json")[1])
    assert shown["data"][0] == "kernel"
    assert call("ls", "--workload", rows[0]["workload"][:8])[0] == 0
    code, _, said = call("show", "00000000")
    assert code == 2
    assert "no description with a key of 00000000" in said
    assert call("show", "xyz")[0] == 2
    assert [call("ls", "--limit", number)[0] for number in (0, -1)] == [2, 2]


def test_stats(call: Run, source: Path) -> None:
    data = json.loads(call("stats", "--json")[1])
    assert (
        data["records"] == data["verdicts"]["ok"] == sum(each["records"] for each in data["best"])
    )
    assert all(each["seconds"] == 1e-6 for each in data["best"])
    assert "best rule" in call("stats")[1]
    lowered = json.loads(call("stats", "--model", source, "--dtype", "bf16", "--json")[1])
    assert lowered["coverage"] < 1.0  # products in bf16 are other kernels
    covered = json.loads(call("stats", "--model", source, "--json")[1])
    assert covered["coverage"] == covered["coverage_by_flops"] == 1.0


def test_explain_miss(call: Run, source: Path, tmp_path: Path) -> None:
    found = json.loads(call("explain-miss", source, "--json")[1])
    assert {each["answer"] for each in found} == {"hit"}
    near = json.loads(call("explain-miss", source, "--threads", 1, "--json")[1])
    assert {tuple(each["reasons"]) for each in near} == {("threads: 2 instead of 1",)} or all(
        "threads" in each["reasons"][0] for each in near
    )
    other = model(tmp_path / "other.onnx", columns=56)
    missed = json.loads(call("explain-miss", other, "--json")[1])
    reasons = [reason for each in missed if each["answer"] == "miss" for reason in each["reasons"]]
    assert any("instead of float32[" in reason for reason in reasons)


def test_exchange_by_the_verb(call: Run, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert call("export", path)[0] == 0
    code, out, _ = call("import", path, "--json")
    assert (code, json.loads(out)[0]["new"]) == (0, 0)
    assert call("export", tmp_path / "log.csv")[0] == 2
    assert call("merge", tmp_path / "none.sqlite")[0] == 2
    assert "removed 0 records" in call("gc")[1]
