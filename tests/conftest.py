"""Options and fixtures that all tests share."""

import gc
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import plugged
import pytest
from hypothesis import HealthCheck, settings

# The same examples each time, however slow the machine is.
settings.register_profile(
    "same", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--update-golden",
        action="store_true",
        help="write what the passes make now into tests/passes, after checking the numbers",
    )
    parser.addoption(
        "--until", type=float, default=0.0, help="skip tests that would begin after this Unix time"
    )
    parser.addoption(
        "--plugin",
        action="append",
        type=Path,
        default=[],
        help="run the suites of plug-ins on those in this file alone",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Tell the modules of tests which plug-ins to run on, before they are imported."""
    plugged.FILES[:] = config.getoption("--plugin") or []
    gc.set_threshold(50_000, 10, 10)  # as the command does: with the next, 6 % less time of the CPU


def pytest_collection_finish() -> None:
    """Let no garbage collection go through the tests themselves, which stay as they are."""
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Draw the same numbers in any order of tests.

    What would begin too late is skipped, so that a summary of the rest comes in time.
    """
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    end: Any = item.config.getoption("--until")
    if end and time.time() > end:
        pytest.skip("no time was left")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs a GPU where there is none, and say why there is none."""
    wanting = [item for item in items if item.get_closest_marker("gpu")]
    if not wanting:
        return
    from hybridc.compiler.cuda import driver

    try:
        driver.first()
    except driver.NoGpuError as error:
        for item in wanting:
            item.add_marker(pytest.mark.skip(reason=str(error)))


@pytest.fixture(autouse=True, scope="session")
def _no_facts_of_this_machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the user measured of this machine shall not decide what the tests compile.

    For the whole session: what compiles in a module's fixture must find what its tests find.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYBRIDC_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture
def known_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peaks that take no seconds to measure, for tests that want any."""
    from hybridc.compiler.hardware import peaks

    monkeypatch.setattr(peaks, "measure", lambda _: peaks.Peaks(1e11, 1e10))


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds of calls and of waiting for other programs are few, where no test looks at times."""
    from hybridc.compiler.assurance import timing
    from hybridc.compiler.measurement import measure, profile
    from hybridc.compiler.orchestration import workshop

    usual: Any = measure.latency.__kwdefaults__
    for name in ("seconds", "warmup"):
        monkeypatch.setitem(usual, name, 0.02)
    monkeypatch.setattr(measure, "_FAST", 0.02)
    monkeypatch.setattr(timing, "_AGAIN", 0)
    monkeypatch.setattr(profile, "WARMUP", 0.02)
    monkeypatch.setattr(workshop, "_TURNS", 0.05)


@pytest.fixture
def bf16_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A cascade with bf16 as the only lower precision, which may be faster on any CPU."""
    from hybridc.compiler.orchestration import prospects, stages

    monkeypatch.setattr(stages, "LOSSY", ("bf16",))
    monkeypatch.setattr(prospects, "slow_halves", lambda _: frozenset())


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """No test knows the code that Dynamo compiled for another; nothing wants gradients."""
    import torch

    from hybridc.compiler.dynamo import torch_region

    torch.compiler.reset()
    torch_region.all_sessions.cache_clear()
    torch.manual_seed(0)
    with torch.no_grad():
        yield


@pytest.fixture
def module() -> Any:
    """`relu(x + w) @ dense` of a 2 by 3 input, with constants `w` and `dense`."""
    from tvm import relax
    from tvm.script import from_source

    text = """
@I.ir_module
class Module:
    @R.function
    def main(
        x: R.Tensor((2, 3), "float32"),
        w: R.Tensor((3,), "float32"),
        dense: R.Tensor((3, 4), "float32"),
    ):
        with R.dataflow():
            shifted = R.add(x, w)
            positive = R.nn.relu(shifted)
            y = R.matmul(positive, dense)
            R.output(y)
        return y
"""
    w = np.array([-1, 0, 1], "float32")
    dense = np.arange(12, dtype="float32").reshape(3, 4)
    return relax.transform.BindParams("main", {"w": w, "dense": dense})(from_source(text))


@pytest.fixture(scope="session")
def artifact_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The file of `example_artifact.make()`."""
    from example_artifact import make

    path = tmp_path_factory.mktemp("artifact") / "m.hyb"
    make().save(path)
    return path.read_bytes()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`relu(x @ w)` of 24 by 48 numbers, as ONNX: one kernel."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).standard_normal((48, 64)).astype(np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Relu", ["h"], ["y"])],
        "tiny",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [24, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [24, 64])],
        [numpy_helper.from_array(weight, "w")],
    )
    path = tmp_path_factory.mktemp("models") / "tiny.onnx"
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return path
