"""Algorithms of a convolution: which one is taken follows from what was measured of them."""

import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from fake_pool import FakeBench, FakePool
from log_records import record
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler import driver, frontend, pipeline, plugin, target
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.interfaces import Context, Point
from hybridc.compiler.kernel_record import Alternatives
from hybridc.compiler.log import access, keys
from hybridc.compiler.log.advice import LogAdvice
from hybridc.compiler.log.record import Record, Verdict
from hybridc.compiler.tuning import algorithms
from hybridc.compiler.tuning.algorithms import VISITS
from hybridc.compiler.tuning.candidates.outcome import CandidateResult, Keep
from hybridc.compiler.tuning.options import Algorithms, Tuning

CPU = target.parse("cpu", 2)
WAYS = {"direct", "Winograd F(2, 3)", "Winograd F(4, 3)"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`relu(conv(x))`, 3x3 and padded, of 12x12 pixels and 16 channels."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 16, 3, 3)).astype("float32") / 12
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4),
        helper.make_node("Relu", ["c"], ["y"]),
    ]
    shape = [1, 16, 12, 12]
    graph = helper.make_graph(
        nodes,
        "one",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path_factory.mktemp("model") / "one.onnx"
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def among(source: Path) -> Alternatives:
    """What packing asks for."""
    asked, steps = algorithms.Asked(), pipeline.parse("default")
    at = [plugin.name_of(type(step)) for step in steps].index(algorithms.PACKING)
    context = Context(CPU, pipeline.rules(), asked)
    pipeline.run(steps[: at + 1], frontend.load(source).module, context)
    (found,) = asked.found.values()
    return found


def measured(among: Alternatives, seconds: Sequence[float | None], **given: Any) -> list[Record]:
    """Records of the algorithms that have a time."""
    known = zip(among.workloads, among.rules, seconds, strict=True)
    usual = {
        "target": keys.of_target(CPU).key,
        "toolchain": keys.of_toolchain().key,
        "mode": among.mode,
        "verdict": Verdict.OK,
    }
    return [
        record(**{**usual, "workload": workload, "rule": rule, "seconds": (one,) * 5, **given})
        for workload, rule, one in known
        if one is not None
    ]


def fill(path: Path, among: Alternatives, records: Sequence[Record]) -> None:
    described = [keys.of_kernel(kernel) for kernel in among.kernels]
    with access.open_log(str(path)) as log:
        added = log.add(records, [*described, keys.of_target(CPU), keys.of_toolchain()])
        assert not added.faults.count


def asked(path: Path, among: Alternatives, near: str = "tools") -> int | None:
    with access.open_log(str(path), readonly=True) as log:
        return LogAdvice(log, keys.of_target(CPU), keys.of_toolchain(), near).fastest(among)


def test_each_algorithm_has_a_kernel_of_its_own(among: Alternatives) -> None:
    assert set(among.algorithms) == WAYS
    assert len(set(among.workloads)) == len(WAYS)
    assert among.name == "3x3 convolution of 12x12, 16 to 16 channels"
    assert among.mode == "warm"  # weights of 9 kB stay in the caches


@pytest.mark.parametrize("algorithm", sorted(WAYS))
def test_the_algorithm_that_was_measured_to_be_fastest_is_taken(
    source: Path, among: Alternatives, algorithm: str, tmp_path: Path
) -> None:
    """The compilation compares the answer with ONNX Runtime's."""
    path, index = tmp_path / "log.sqlite", among.algorithms.index(algorithm)
    times = [1e-5 if each == algorithm else 2e-5 for each in among.algorithms]
    fill(path, among, measured(among, times))
    lock = dict(driver.compile(source, log=str(path), threads=2).lock)
    named = lock.pop(among.name)
    assert named == {"rule": among.rules[index], "point": {}, "workload": among.workloads[index]}
    (kernel,) = [each["rule"] for each in lock.values() if "conv2d" in each["rule"]]
    assert kernel == among.rules[index]


def test_a_lock_builds_the_same_bytes_by_the_same_algorithm(
    source: Path, among: Alternatives, tmp_path: Path
) -> None:
    path, last = tmp_path / "log.sqlite", len(WAYS) - 1
    fill(path, among, measured(among, [3e-5] * last + [1e-5]))
    first, second, plain = (tmp_path / f"{name}.hyb" for name in ("first", "second", "plain"))
    driver.compile(source, log=str(path), threads=2).save(first)
    driver.compile(source, lock=first, threads=2).save(second)
    assert first.read_bytes() == second.read_bytes()
    empty = tmp_path / "empty.sqlite"
    access.open_log(str(empty)).close()
    driver.compile(source, log=str(empty), threads=2).save(plain)
    assert plain.read_bytes() != first.read_bytes()


@pytest.mark.parametrize(
    ("times", "fastest"),
    [
        ((1e-5, 2e-5, 3e-5), 0),
        ((3e-5, 2e-5, 1e-5), 2),
        ((3e-5, 1e-5, 2e-5), 1),
        ((1.02e-5, 1e-5, 1e-5), 0),  # inside the noise
        ((3e-5, None, 1e-5), 2),
        ((None, 2e-5, 1e-5), None),
        ((3e-5, None, None), None),
        ((None, None, None), None),
    ],
)
def test_analysis_is_overruled_by_what_is_clearly_faster(
    among: Alternatives, times: tuple[float | None, ...], fastest: int | None, tmp_path: Path
) -> None:
    fill(tmp_path / "log.sqlite", among, measured(among, times))
    assert asked(tmp_path / "log.sqlite", among) == fastest


def test_of_several_visits_the_least_disturbed_counts(among: Alternatives, tmp_path: Path) -> None:
    """The choice of analysis was disturbed twice of four times."""
    path = tmp_path / "log.sqlite"
    for first in (1.5e-5, 0.9e-5, 1.4e-5, 0.92e-5):
        fill(path, among, measured(among, (first, 1.2e-5, 2e-5)))
    assert asked(path, among) == 0


def test_times_of_other_conditions_are_not_compared(among: Alternatives, tmp_path: Path) -> None:
    path = tmp_path / "cold.sqlite"
    fill(path, among, measured(among, (3e-5, 2e-5, 1e-5), mode="cold"))
    assert asked(path, among) is None
    path, other = tmp_path / "mixed.sqlite", replace(CPU, threads=7)
    mixed = measured(among, (3e-5, None, None))
    mixed += measured(among, (None, 2e-5, 1e-5), target=keys.of_target(other).key)
    described = [keys.of_kernel(kernel) for kernel in among.kernels]
    with access.open_log(str(path)) as log:
        told = [*described, *map(keys.of_target, (CPU, other)), keys.of_toolchain()]
        assert not log.add(mixed, told).faults.count
    assert asked(path, among, "any") is None


@dataclass
class TimedPool(FakePool):
    """Takes seconds from the algorithm's name, and remembers in which states of the caches."""

    modes: set[str] = field(default_factory=set[str])
    again: list[str] = field(default_factory=list[str])
    fastest: str = "Winograd F(4, 3)"
    disturbed: str | None = None  # the algorithm whose first visit took long

    def set_baseline(
        self, bench: FakeBench, point: Point, seconds: float | None = None
    ) -> CandidateResult:
        self.points.append(point)
        self.modes.add(bench.kernel.mode)
        return CandidateResult(point, Verdict.OK, (self._seconds(bench, self.disturbed),) * 5)

    def _seconds(self, bench: FakeBench, disturbed: str | None) -> float:
        if disturbed is not None and bench.kernel.name.endswith(disturbed):
            return 20e-5
        return 1e-5 if bench.kernel.name.endswith(self.fastest) else 9e-5

    def measure(
        self, bench: FakeBench, points: Sequence[Point], incumbent: float | None, keep: Keep
    ) -> None:
        """Again, and nothing disturbs."""
        self.again.append(bench.kernel.name)
        for point in points:
            keep(CandidateResult(point, Verdict.OK, (self._seconds(bench, None),) * 6))


def test_algorithms_are_measured_before_the_model_is_packed_and_once(
    source: Path, among: Alternatives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pools: list[TimedPool] = []

    @contextmanager
    def pool(*_: Any, **__: Any) -> Generator[TimedPool]:
        pools.append(TimedPool())
        yield pools[-1]

    monkeypatch.setattr(algorithms, "Pool", pool)
    said: list[str] = []
    options = Options(log=str(tmp_path / "log.sqlite"), threads=2, progress=said.append)
    for measurements in (len(WAYS), 0):
        told = Algorithms(Tuning(budget="10min"))
        module = driver.unscheduled(source, options, algorithms=told).module
        assert len(pools[-1].points) == measurements
        overruled = among.algorithms[0] != "Winograd F(4, 3)"
        assert len(pools[-1].again) == (2 * VISITS if overruled and measurements else 0)
        assert pools[-1].modes <= {among.mode}
        names = " ".join(var.name_hint for var, _ in module.functions_items())
        assert "winograd_conv2d" in names
        if among.algorithms[0] != "Winograd F(4, 3)":
            assert "Winograd F(4, 3) instead of" in told.notes[0]
        seconds = told.left.seconds()
        assert seconds is not None
        assert seconds < 600
    counts = [text.split()[1] for text in said if text.startswith("algorithms ")]
    assert counts[: len(WAYS)] == [f"{n + 1}/{len(WAYS)}:" for n in range(len(WAYS))]
    json.dumps(told.notes)


def test_an_algorithm_that_was_fastest_while_the_other_was_disturbed_is_measured_again(
    source: Path, among: Alternatives, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = among.algorithms[0]
    made = TimedPool(fastest=first, disturbed=first)

    @contextmanager
    def pool(*_: Any, **__: Any) -> Generator[TimedPool]:
        yield made

    monkeypatch.setattr(algorithms, "Pool", pool)
    told = Algorithms(Tuning())
    driver.unscheduled(
        source, Options(log=str(tmp_path / "log.sqlite"), threads=2), algorithms=told
    )
    assert any(name.endswith(first) for name in made.again)
    assert told.notes == []
