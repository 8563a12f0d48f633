"""TVM's own search in our tuner: it ends, its winners are right, and the log keeps them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import faulty_rule
import pytest
import tvm
from fake_pool import FakePool
from generic_kernels import GENERIC
from tvm.s_tir import meta_schedule
from tvm.s_tir.meta_schedule.database import JSONDatabase, TuningRecord

from hybridc.compiler import pipeline, plugin, target
from hybridc.compiler.interfaces import Context, Point, PrimFunc, ScheduleRule, Strategy, Trial
from hybridc.compiler.log import access, exchange, keys, unchecked, winner
from hybridc.compiler.log.advice import LogAdvice
from hybridc.compiler.log.lookup import Hit
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.tuning import imported, strategies, summary, tasks
from hybridc.compiler.tuning.candidates.outcome import CandidateResult
from hybridc.compiler.tuning.candidates.pool import Pool
from hybridc.compiler.tuning.candidates.racing import Race
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.options import Budget
from hybridc.compiler.tuning.sketches import SKETCH, sketches
from hybridc.compiler.tuning.tasks import Task
from hybridc.compiler.tuning.tuner import Tuner
from hybridc.compiler.tuning.whole_model import versions

pytest.importorskip("xgboost")

CPU = target.parse("cpu", threads=2)
(FALLBACK,) = (rule for rule in pipeline.rules() if plugin.name_of(type(rule)) == "fallback")
TRIALS = 10  # the default, one round by chance, and one by what was learned


def task(name: str, func: PrimFunc | None = None) -> Task:
    kernel = Kernel(name, func or GENERIC[name](), FALLBACK, CPU)
    (made,) = tasks.distinct([(kernel, 1)])
    return made


def strategy(text: str = "metaschedule{population=16 generations=2 warmup=4}") -> Strategy:
    return strategies.catalogue().create(text)


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2, 1, Race(0.01, 0.0001)) as opened:
        yield opened


SLOW = ("transposed product", "prefix sums")
EACH = [pytest.param(name, marks=[pytest.mark.slow] * (name in SLOW)) for name in GENERIC]


@pytest.mark.parametrize("name", EACH)
def test_a_tuning_ends_is_right_and_is_kept(
    name: str, pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "NOISE", -1.0)  # never stop early
    one = task(name)
    with access.open_log(str(tmp_path / "log.db")) as log:
        tuner = Tuner([one], log, strategy(), pool, Budget(TRIALS - 1))
        done = tuner.run()
        assert (done.measured, done.reason) == (TRIALS, "all trials are done")
        records = list(log.records(workload=one.workload.key))
        assert len({str(record.point) for record in records}) == TRIALS
        assert records[0].point[SKETCH] == 0  # the default
        assert {record.rule for record in records} == {"fallback"}
        assert {record.verdict for record in records} <= {Verdict.OK, Verdict.REFUSED}
        assert any(record.point[SKETCH] and record.seconds for record in records)
        assert Tuner([task(name)], log, strategy(), pool, Budget(TRIALS - 1)).run().measured == 0
        compiled(one.kernel.func, log)


def compiled(func: PrimFunc, log: TuningLog) -> None:
    """Compile a kernel by the log alone: it gets the winner."""
    advice = LogAdvice(log, keys.of_target(CPU), keys.of_toolchain(), frozen=True)
    context = Context(CPU, pipeline.rules(), advice)
    module = tvm.IRModule({"main": func})
    made = pipeline.run(pipeline.parse("schedule"), module, context)["main"]
    advice.check()
    (record,) = context.kernels
    best = log.lookup(record.workload, keys.of_target(CPU), keys.of_toolchain())
    assert isinstance(best, Hit)
    assert (record.rule, record.point) == ("fallback", best.record.point)
    again = FALLBACK.schedule(FALLBACK.match(func, CPU), record.point).mod["main"]
    tvm.ir.assert_structural_equal(made.body, again.body)


def test_the_history_teaches(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same history gives the same proposal, another one another; TVM's model is asked."""
    model = meta_schedule.cost_model.XGBModel
    asked: list[int] = []
    real = model.update
    monkeypatch.setattr(model, "update", lambda *given: (asked.append(1), real(*given))[1])
    search = task("distances").search
    points = strategy().propose(search, [], 7)
    assert not asked
    times = [Trial(point, 1e-3 * (1 + i)) for i, point in enumerate(points)]
    first = strategy().propose(search, times, 6)
    assert asked
    assert strategy().propose(search, times, 6) == first
    other = [Trial(point, None if i == 2 else 1e-3 / (1 + i)) for i, point in enumerate(points)]
    assert strategy().propose(search, other, 6) != first


def test_what_a_database_of_tvm_holds_is_tried_first(tmp_path: Path) -> None:
    """Its fastest traces become hints; what is damaged or of another kernel does not."""
    func = GENERIC["distances"]()
    database, wanted = database_of(tmp_path / "tvm", func)
    assert len(database) == 4
    with access.open_log(str(tmp_path / "log.db")) as log:
        assert exchange.load(log, tmp_path / "tvm").new == 4
        search = imported.hinted(task("distances", func), log)
        assert search.hints == tuple(wanted)
        assert strategy().propose(search, [], 3) == (search.default, *search.hints[:2])
        other = task("prefix sums")
        assert imported.hinted(other, log) == other.search
        assert sum(unchecked.waiting(log).values()) == 3
        pool: Any = FakePool(judge=lambda point: CandidateResult(point, Verdict.OK, (1e-3,) * 6))
        Tuner([task("distances", func)], log, strategy(), pool, Budget(3)).run()
        assert pool.points[:4] == [search.default, *wanted]
        assert not unchecked.waiting(log)


def test_records_of_tvms_search_compete_with_the_rule_of_a_kernel(tmp_path: Path) -> None:
    """Though that has no sketches; compiling takes what is faster."""
    func, plugins = GENERIC["distances"](), (faulty_rule.written(tmp_path),)
    _, wanted = database_of(tmp_path / "tvm", func)

    def judge(point: Point) -> CandidateResult:
        seconds = 1e-3 * (1 + wanted.index(dict(point))) if point in wanted else 2.5e-3
        return CandidateResult(point, Verdict.OK, (seconds,) * 6)

    pool: Any = FakePool(judge=judge)
    with access.open_log(str(tmp_path / "log.db"), plugins=plugins) as log:
        exchange.load(log, tmp_path / "tvm")
        (one,) = tasks.distinct([(Kernel("distances", func, ruled(*plugins), CPU), 1)])
        chosen = strategies.catalogue().create("random")
        tuned = Tuner([one], log, chosen, pool, Budget(2)).run()
        assert (tuned.tasks, tuned.measured) == ((one,), 1 + 2 + len(wanted))
        (row,) = summary.kernels(tuned, log)
        assert (row["rule"], row["point"], row["trials"]) == ("fallback", wanted[0], 2)
        assert (row["default"], row["best"]) == (2.5e-3, 1e-3)
        assert not imported.useless([one], log)
        assert one.acceptable(measured("fallback", wanted[0])) is None
        assert one.usable(measured("fallback", wanted[0]))
        first, *others = versions.of({one: [("fallback", wanted[0])]}, {})
        assert [first.given, *(each.given for each in others)] == [
            {},
            {one.workload.key: ("fallback", wanted[0])},
        ]
        assert Tuner([one], log, chosen, pool, Budget(2)).run().measured == 0
        compiled(func, log)


def ruled(plugin_file: Path) -> ScheduleRule:
    """A rule that takes every kernel and knows no sketches."""
    return plugin.Catalogue("hybridc.schedules", ScheduleRule, (plugin_file,)).create("faulty")


def measured(rule: str, point: Point) -> winner.Measured:
    return winner.Measured(1, 1, rule, point, "", "ok", 1e-3, "[]")


def test_records_of_tvms_search_that_are_no_points_are_told(tmp_path: Path) -> None:
    func, plugins = GENERIC["distances"](), (faulty_rule.written(tmp_path),)
    database_of(tmp_path / "tvm", func)
    with access.open_log(str(tmp_path / "log.db"), plugins=plugins) as log:
        exchange.load(log, tmp_path / "tvm")
        (one,) = tasks.distinct([(Kernel("distances", func, ruled(*plugins), CPU), 1)])
        assert len(imported.rivals(one, log)) == 1
        assert imported.useless([one], log) == (
            "3 unchecked records of TVM's search could not be tried, as no sketch here makes them:"
            " distances (faulty)"
        )


def database_of(folder: Path, func: PrimFunc) -> tuple[JSONDatabase, list[dict[str, int]]]:
    """A database that TVM wrote, and its points from fast to slow; one record has failed."""
    folder.mkdir()
    found = sketches(func, CPU)
    database = JSONDatabase(work_dir=str(folder))
    module = found.context.mod
    workload = database.commit_workload(module)
    info = meta_schedule.arg_info.ArgInfo.from_prim_func(module["main"])
    points: list[dict[str, int]] = []
    for number, seconds in ((1, 4e-3), (2, 1e-3), (3, 2e-3), (4, 1e10)):
        default = FALLBACK.default(FALLBACK.match(func, CPU), CPU)
        point = dict(found.canonical({**default, "threads": 1, SKETCH: number}))
        trace = found.schedule(point).trace
        made = TuningRecord(trace, workload, [seconds], CPU.tvm, info)
        database.commit_tuning_record(made)
        points.append(point)
    return database, [points[1], points[2], points[0]]


def test_other_spaces_are_searched_by_evolution() -> None:
    search = task("distances").search
    plain = type(search)({"rows": (1, 2, 4)}, {"rows": 1})
    assert len(strategy().propose(plain, [], 9)) == 3
    assert search.match is not None
