"""Which kernels a model has to tune, and where the next trials go."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from hybridc.compiler import driver, pipeline, target
from hybridc.compiler.configuration import plans
from hybridc.compiler.hardware import cached_weights
from hybridc.compiler.interfaces import Context, SearchTask, Trial
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.tuning import tasks
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.tasks import Task
from hybridc.compiler.tuning.trials import history
from hybridc.compiler.tuning.whole_model import versions

CPU = target.parse("avx2", threads=2)
SPACE = {"size": tuple(range(100))}

TWICE = """
@I.ir_module
class Module:
    @R.function
    def main(x: R.Tensor((8, 24), "float32"), w: R.Tensor((24, 24), "float32")):
        with R.dataflow():
            a = R.nn.relu(R.matmul(x, w))
            b = R.nn.relu(R.matmul(a, w))
            c = R.nn.softmax(b)
            R.output(c)
        return c
"""


def found_in(text: str) -> list[Task]:
    from tvm.script import from_source

    context = Context(CPU, pipeline.rules())
    module = pipeline.run(pipeline.parse("legalize,fuse"), from_source(text), context)
    return tasks.distinct(tasks.kernels(module, context, "lower-bfloat16"))


def test_kernels_that_compute_the_same_are_one_task() -> None:
    found = {task.kernel.name: task for task in found_in(TWICE)}
    product = next(task for name, task in found.items() if "matmul" in name)
    assert product.calls == 2
    assert next(task for name, task in found.items() if "softmax" in name).calls == 1
    assert all(task.search.size > 1 for task in found.values())


def test_two_models_share_their_kernels(tiny_model: Path) -> None:
    options = plans.Options(target="avx2", threads=2)
    twice: list[tuple[Kernel, int]] = []
    for _ in range(2):
        given = driver.unscheduled(tiny_model, options)
        twice += tasks.kernels(given.module, given.context, given.finish)
    (task,) = tasks.distinct(twice)
    assert task.calls == 2
    assert "plan-memory" in task.kernel.finish
    assert len(task.kernel.weights) == 1


def test_weights_that_the_caches_cannot_hold_are_in_memory(tiny_model: Path) -> None:
    options = plans.Options(target="avx2", threads=2)
    given = driver.unscheduled(tiny_model, options)
    held = cached_weights.weight_bytes(given.module)
    states: list[str] = []
    found: list[tuple[Kernel, int]] = []
    for last_cache in (4 * held, held):
        small = replace(given.context, target=replace(given.context.target, l3=last_cache))
        found += tasks.kernels(given.module, small, given.finish)
        states.append(found[-1][0].mode)
    assert states == ["warm", "cold"]
    assert [kernel.target.near for kernel, _ in found] == [True, False]  # as rules are told
    assert [task.kernel.mode for task in tasks.distinct(found)] == states  # measured apart


def test_a_kernel_crosses_to_another_process(tiny_model: Path, tmp_path: Path) -> None:
    import tvm

    given = driver.unscheduled(tiny_model, plans.Options(threads=2))
    ((kernel, _),) = tasks.kernels(given.module, given.context, given.finish)
    kernel.save(tmp_path / "kernel.json")
    read = Kernel.load(tmp_path / "kernel.json")
    assert read.target == kernel.target
    assert (read.rule, read.finish, read.weights) == (kernel.rule, given.finish, kernel.weights)
    point = kernel.rule.default(kernel.match, kernel.target)
    tvm.ir.assert_structural_equal(read.scheduled(point), kernel.scheduled(point))


def task(name: str, calls: int, *seconds: float | None) -> Task:
    """A task whose default is the first of the times."""
    kernel: Any = replace(_some_kernel(), name=name)
    search = SearchTask(SPACE, {"size": 0})
    history = [Trial({"size": i}, value) for i, value in enumerate(seconds)]
    workload: Any = None
    return Task(kernel, calls, workload, search, history)


def _some_kernel() -> Kernel:
    return found_in(TWICE)[0].kernel


def test_trials_go_where_they_save_most() -> None:
    rare = task("rare", 1, 1e-3)
    frequent = task("frequent", 50, 1e-3)
    assert tasks.choose([rare, frequent], 8) is frequent
    fresh = task("fresh", 1)
    assert tasks.choose([frequent, fresh], 8) is fresh


def test_a_kernel_whose_best_points_are_alike_is_left() -> None:
    alike = [1e-3 * (1 + i * 1e-5) for i in range(30)]
    settled = task("settled", 50, 1e-3, *alike)
    assert not settled.promising(8)
    apart = [1e-3 * (1 + i * 0.1) for i in range(9)]
    open_ended = task("open", 1, 1e-3, *apart)
    assert open_ended.promising(8)
    assert tasks.choose([settled, open_ended], 8) is open_ended
    assert tasks.choose([settled], 8) is None


def test_a_default_that_nothing_comes_near_is_kept() -> None:
    worse = [5e-3 * (1 + i * 0.01) for i in range(30)]
    assert not task("hopeless", 1, 1e-3, *worse).promising(8)
    assert task("early", 1, 1e-3, *worse[:7]).promising(8)


def test_more_trials_promise_more_and_the_past_less() -> None:
    times = [1.2e-3, 1.3e-3, 1.15e-3, 1.4e-3, 1.25e-3, 1.1e-3, 1.35e-3]
    given = task("given", 1, 1e-3, *times)
    assert given.gain(16) > given.gain(4) >= 0
    longer = task("longer", 1, 1e-3, *times, *[2e-3] * 40)
    assert longer.gain(8) < given.gain(8)


def record(point: dict[str, int], verdict: Verdict, *seconds: float, **other: Any) -> Record:
    given: dict[str, Any] = {"rule": "dense", "mode": "warm", **other}
    keys = dict.fromkeys(("workload", "target", "toolchain"), "0" * 64)
    return Record(
        point=point, verdict=verdict, seconds=seconds, when=1.0, who="me", seed=0, **keys, **given
    )


def test_the_history_pools_samples_and_failures_stay() -> None:
    found = history(
        [
            record({"size": 1}, Verdict.OK, 1.0, 2.0),
            record({"size": 2}, Verdict.OK, 5.0),
            record({"size": 1}, Verdict.OK, 1.6),
            record({"size": 2}, Verdict.WRONG),
            record({"size": 3}, Verdict.OK, 1.0, mode="cold"),
            record({"size": 4}, Verdict.OK, 1.0, rule="conv2d"),
            record({"size": 5}, Verdict.TIMEOUT),
        ],
        "dense",
        "warm",
    )
    assert found == [Trial({"size": 1}, 1.6), Trial({"size": 2}), Trial({"size": 5})]


def test_a_default_that_fails_runs_in_no_version_of_its_model() -> None:
    """It might bring down the process that calls the model."""
    one, _, *_ = found_in(TWICE)
    default, other = one.search.default, one.search.point(one.search.size - 1)
    one.history = [Trial(default, None), Trial(other, 1e-5)]
    base = versions.stand_ins([one]) or {}
    assert base == {one.workload.key: (one.kernel.rule_name, other)}
    assert [version.given for version in versions.of({}, base)] == [base]
    one.history = [Trial(default, None)]
    assert versions.stand_ins([one]) is None
