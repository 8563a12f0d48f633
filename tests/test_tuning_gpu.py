"""Tuning on a GPU that is a fake: candidates, faults, who works on which GPU."""

import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from cuda_kernels import gpu, product
from fake_driver import CAPTURE_UNSUPPORTED, FakeDriver
from fake_pool import FakePool, tuner
from test_cuda_target import A100, NVCC

from hybridc.compiler import pipeline, settings, target
from hybridc.compiler.cuda import driver, resources, toolchain
from hybridc.compiler.cuda.link import Link
from hybridc.compiler.cuda.resources import Usage
from hybridc.compiler.errors import PassError
from hybridc.compiler.interfaces import NotApplicable, ScheduleRule
from hybridc.compiler.log import keys
from hybridc.compiler.log.access import open_log
from hybridc.compiler.log.record import Verdict
from hybridc.compiler.tuning import on_gpus, tasks
from hybridc.compiler.tuning.candidates.arguments import CandidateError
from hybridc.compiler.tuning.candidates.gpu_arguments import GpuArguments, LostGpuError, told
from hybridc.compiler.tuning.candidates.outcome import CandidateResult
from hybridc.compiler.tuning.candidates.pool import Pool
from hybridc.compiler.tuning.candidates.worker import Worker
from hybridc.compiler.tuning.kernel import Kernel, machine_code
from hybridc.compiler.tuning.options import Budget

HERE = "cuda-matmul"


def kernel(rule: str = HERE, where: target.Target | None = None) -> Kernel:
    """A product for a GPU that nobody has to have."""
    here = where or gpu()
    (func,) = product([64, 96], [96, 80])(here)
    found = {_name(each): each for each in pipeline.rules(device="cuda")}
    return Kernel("product", func, found[rule], here)


def _name(rule: ScheduleRule) -> str:
    from hybridc.compiler import plugin

    return plugin.name_of(type(rule))


def test_a_kernel_for_a_gpu_crosses_to_another_process(tmp_path: Path) -> None:
    one = kernel()
    one.save(tmp_path / "k.json")
    again = Kernel.load(tmp_path / "k.json")
    assert again.target.device == one.target.device
    assert again.target.kind == "cuda"
    assert not isinstance(again.match, NotApplicable)


def test_another_gpu_is_another_target() -> None:
    h100, a100 = (keys.of_target(target.parse(f"nvidia/{name}")) for name in ("h100", "a100"))
    assert h100.key != a100.key
    assert "gpu" not in keys.of_target(target.parse("avx2")).data


@NVCC
@pytest.mark.parametrize("point", [None, "default"])
def test_a_candidate_is_built_with_its_machine_code(point: str | None, tmp_path: Path) -> None:
    one = kernel()
    chosen = one.rule.default(one.match, one.target) if point else None
    library = tmp_path / "k.so"
    one.compile(chosen, library)
    assert library.is_file()
    assert machine_code(library).read_bytes()[:4] == b"\x7fELF"


def test_what_is_beyond_the_gpu_is_not_even_compiled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    one, much = kernel(), "70000 blocks along y, 65535 are allowed"
    monkeypatch.setattr(resources.Launch, "faults", lambda *_: (much,))

    def never() -> None:
        raise AssertionError("it was compiled")

    monkeypatch.setattr(toolchain, "find", never)
    point = one.rule.default(one.match, one.target)
    with pytest.raises(PassError, match=f"beyond h100: {much}"):
        one.compile(point, tmp_path / "k.so")


def test_what_ptxas_gives_too_much_is_not_launched() -> None:
    resources.check({"k": Usage(255, 0, 2**10)}, gpu().device)
    with pytest.raises(PassError, match="kernel k takes 300 registers"):
        resources.check({"k": Usage(300, 0, 0)}, gpu().device)


@pytest.fixture
def arguments(tmp_path: Path) -> tuple[GpuArguments, FakeDriver, str]:
    """A candidate's parameters on the fake, and a library that the host can run."""
    from hybridc.compiler.tuning import kernel as kernels

    here = target.parse("cpu", 1)
    host = replace(kernel(), target=here, rule=pipeline.rules()[-1])
    library = tmp_path / "k.so"
    fallback = next(rule for rule in pipeline.rules() if _name(rule) == "fallback")
    plain = replace(host, rule=fallback)
    match = plain.match
    kernels.build.compile_kernel(
        fallback.schedule(match, fallback.default(match, here)).mod["main"], here
    ).export_library(str(library))
    machine_code(library).write_bytes(b"")
    fake = FakeDriver()
    return GpuArguments(kernel(), Link(0, fake), tvm.cpu()), fake, str(library)


def test_a_candidate_runs_and_is_compared(
    arguments: tuple[GpuArguments, FakeDriver, str], tmp_path: Path
) -> None:
    made, fake, library = arguments
    run = made.call(library)
    made.reset()
    run()
    made.fetch()
    x, w, y = made.arrays
    np.testing.assert_allclose(y, x @ w, rtol=1e-4, atol=1e-4)
    assert fake.calls[-1] == "cuStreamSynchronize"
    wanted = tmp_path / "right.npz"
    np.savez(wanted, *(array.reshape(-1).view(np.uint8) for array in made.arrays))
    assert made.difference(str(wanted)) is None


def test_time_is_taken_between_events_and_caches_are_emptied_before(
    arguments: tuple[GpuArguments, FakeDriver, str],
) -> None:
    made, fake, library = arguments
    made.kernel = replace(made.kernel, mode="cold")
    take = made.timer(made.call(library), 0.0)
    fake.calls.clear()
    assert len(take(2)) == 2
    event = "cuEventCreate", "cuEventRecord", "cuEventCreate", "cuEventRecord"
    one = ["cuMemsetD8Async", *event, "cuEventSynchronize", "cuEventElapsedTime"]
    ended = ["cuEventDestroy", "cuEventDestroy"]
    assert fake.calls == ["cuMemAlloc", *one, *ended, *one, *ended]


@pytest.mark.parametrize("recorded", [True, False])
def test_small_kernels_are_timed_many_at_a_launch_where_they_can_be_recorded(
    recorded: bool, arguments: tuple[GpuArguments, Any, str]
) -> None:
    made, fake, _ = arguments
    if not recorded:
        fake.fails["cuStreamEndCapture"] = CAPTURE_UNSUPPORTED
    done, marks = [0], list[int]()

    def calls(number: int = 1) -> None:
        done[0] += number

    def elapsed(taken: Any, *_: Any) -> int:
        taken._obj.value = 5e-3 * (marks[-1] - marks[-2])  # milliseconds
        return 0

    fake.cuEventRecord, fake.cuEventElapsedTime = lambda *_: marks.append(done[0]) or 0, elapsed
    fake.work = lambda: calls(200)  # what a graph of a millisecond holds
    take = made.timer(calls, 1.9e-3)
    assert fake.calls.count("cuStreamBeginCapture") == 1
    fake.calls.clear()
    seconds = [each for each, undisturbed in take(3) if undisturbed]
    assert seconds == pytest.approx([5e-6] * 3)
    # Each sample has two milliseconds; before the first the GPU is kept busy.
    assert fake.calls.count("cuGraphLaunch") == (1 + 3 * 2) * recorded


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("CUDA: an illegal memory access was encountered", LostGpuError),
        ("CUDA: too many resources requested for launch", CandidateError),
    ],
)
def test_a_fault_says_whether_the_gpu_is_lost(said: str, kind: type[Exception]) -> None:
    with pytest.raises(CandidateError) as raised, told():
        raise RuntimeError(said)
    assert type(raised.value) is kind


class Runner:
    """A process that has lost its GPU."""

    number = 1

    def send(self, *_: Any) -> None:
        """It answers at once."""

    def receive(self) -> dict[str, str]:
        return {"error": "LostGpuError: illegal memory access", "kind": "LostGpuError"}

    def kill(self) -> None:
        """Nothing lives."""


def test_a_process_that_lost_its_gpu_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    pool: Any = Pool(1, gpu="3")
    processes: Any = pool._processes
    assert processes._environment["CUDA_VISIBLE_DEVICES"] == "3"
    processes._runner = Runner()
    processes.builders = [Runner()]
    found = pool._run({"do": "measure"}, 1.0)
    assert isinstance(found, CandidateResult)
    assert found.verdict is Verdict.CRASH
    assert processes._runner is None


def test_a_process_for_a_gpu_has_no_limit_on_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[Any] = []
    monkeypatch.setattr("resource.setrlimit", lambda *given: limits.append(given))
    monkeypatch.setattr("os.sched_setaffinity", lambda *_: None)
    worker = Worker()
    worker.begin(0, [0])
    assert len(limits) == 1  # that of core dumps
    worker.begin(2**30, [0])
    assert len(limits) == 3


def _host_with(monkeypatch: pytest.MonkeyPatch, *names: str, seen: str | None) -> None:
    found = [
        driver.Device(i, driver.described(name, A100 if "A100" in name else {**A100, "major": 9}))
        for i, name in enumerate(names)
    ]
    monkeypatch.setattr(driver, "devices", lambda: tuple(found))
    if seen is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [(None, ("0", "2")), ("3,1,7", ("3", "7")), ("GPU-a, GPU-b,GPU-c", ("GPU-a", "GPU-c"))],
)
def test_each_gpu_of_the_kind_has_a_tuner(
    seen: str | None, wanted: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    _host_with(monkeypatch, "NVIDIA A100", "NVIDIA H100", "NVIDIA A100", seen=seen)
    assert on_gpus.names(target.parse("nvidia/a100")) == wanted
    assert on_gpus.names(target.parse("cpu")) == (None,)
    assert settings.environment(1, wanted[0])["CUDA_VISIBLE_DEVICES"] == wanted[0]


def test_tuners_beside_the_first_end_with_their_work_or_at_once() -> None:
    with on_gpus.beside(["1", "2"], lambda name, _: int(name)) as measured:
        pass
    assert sorted(measured) == [1, 2]
    ended = threading.Event()

    def tune(_: str, ending: on_gpus.Ending) -> int:
        ending.tell(lambda when: ended.set() if when <= time.monotonic() else None)
        assert ended.wait(600)
        return 0

    with pytest.raises(KeyboardInterrupt), on_gpus.beside(["1"], tune):
        raise KeyboardInterrupt
    assert ended.is_set()


def test_a_gpu_that_fails_fails_alone() -> None:
    def tune(name: str, _: on_gpus.Ending) -> int:
        if name == "1":
            raise driver.NoGpuError("it is gone")
        return 5

    with on_gpus.beside(["1", "2"], tune) as measured:
        pass
    assert sorted(measured) == [0, 5]


def test_a_tuner_finds_points_of_a_gpus_rule(tmp_path: Path) -> None:
    """Everything but the measurement: task, strategy, predictor, log."""
    one = kernel()
    with open_log(str(tmp_path / "log.sqlite")) as opened:
        pool: Any = FakePool(judge=_judged)
        made = tuner.__globals__["Tuner"](
            tasks.distinct([(one, 2)]), opened, _strategy(), pool, Budget(12)
        )
        tuned = made.run()
    assert tuned.measured >= 12
    (task,) = tuned.tasks
    assert task.best is not None
    assert task.best.seconds is not None


def _judged(point: Any) -> CandidateResult:
    return CandidateResult(point, Verdict.OK, (1e-3 + 1e-6 * sum(point.values()),) * 6)


def _strategy() -> Any:
    from hybridc.compiler.tuning import strategies

    return strategies.catalogue().create("evolutionary")
