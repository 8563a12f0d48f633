"""TVM's own runtime for CUDA on a fake of NVIDIA's libraries: loading, launching, copying, graphs.

Each test has a process of its own, as TVM compiles otherwise where its runtime for CUDA is loaded.
"""

import ctypes
import subprocess
import sys
from pathlib import Path
from typing import Any

import fake_cuda
import numpy as np
import pytest
from cuda_emulator import needs_compiler

from hybridc.compiler.cuda import runtime
from hybridc.compiler.cuda.driver import NoGpuError

pytestmark = needs_compiler
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process on a machine with the fake GPU."""
    return fake_cuda.environment(tmp_path_factory.mktemp("fake"))


@pytest.fixture(scope="module")
def digits(machine: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits' network, compiled for the fake GPU without looking at it."""
    from hybridc.compiler import driver

    path = tmp_path_factory.mktemp("digits") / "digits.hyb"
    model = HERE.parent / "examples" / "digits" / "digits.onnx"
    driver.compile(str(model), target="sm_90a").save(path)
    return path


def ran(machine: dict[str, str], *command: str) -> str:
    """What a Python process says there."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=HERE,
        env=machine,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


_SESSION = """
import ctypes
import numpy as np
from cuda_kernels import product
from onnx_models import FLOAT, build as model, node
from hybridc.compiler.building import build
from hybridc.compiler import driver, pipeline, target
from hybridc.compiler.cuda import runtime
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.runtime.tensors import to_tensor

here = target.parse("cuda")
(func,) = product([32, 40], [40, 48], "float16")(here)
rule = next(r for r in pipeline.rules(device="cuda") if type(r).__name__ == "CudaTensorMatmul")
match = rule.match(func, here)
made = build.compile_kernel(rule.schedule(match, rule.default(match, here)).mod["main"], here)
draw = np.random.default_rng(0)
x, w = (draw.standard_normal(shape).astype("float16") for shape in ([32, 40], [40, 48]))
given = [to_tensor(a).copyto(runtime.device(0)) for a in (x, w, np.zeros([32, 48], "float32"))]
made["main"](*given)
np.testing.assert_allclose(given[2].numpy(), x.astype("f4") @ w.astype("f4"), rtol=1e-3, atol=1e-3)

w = draw.standard_normal((480, 32)).astype("float32")
wanted = [("y", FLOAT, (24, 32))]
source = model([node("MatMul", "x w", "z"), node("Relu", "z", "y")],
               [("x", FLOAT, (24, 480))], wanted, {"w": w})
made = driver.compile(source, target="cuda", verify="off")
assert made.report["kernels"][0]["point"]["splits"] > 1, "there is a workspace"
made.save("FILE")
session = InferenceSession("FILE")
allocations = []
for call in range(6):
    fed = draw.standard_normal((24, 480)).astype("float32")
    (got,) = session.run(None, {"x": fed})
    np.testing.assert_allclose(got, np.maximum(fed @ w, 0), rtol=1e-4, atol=1e-4)
    allocations.append(ctypes.CDLL("libcudart.so.13").fake_allocations())
assert len(set(allocations[1:])) == 1, f"the second call was the last to allocate: {allocations}"
assert not session._main.notes, session._main.notes
assert any(known.graph for known in session._main._known.values())
print("done")
"""


def test_a_kernel_and_a_session_run_by_tvms_runtime(
    machine: dict[str, str], tmp_path: Path
) -> None:
    """The product calls device functions of ours, which TVM's own compilation lacks."""
    text = _SESSION.replace("FILE", str(tmp_path / "m.hyb"))
    assert ran(machine, "-c", text).strip().endswith("done")


_CLI = "from hybridc.cli.main import main; main()"


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        ({"FAKE_CUDA_VERSION": "12040"}, "too old: it is for CUDA 12.4, and code needs 13.0"),
        ({"FAKE_CUDA_MAJOR": "8"}, "its code is for sm_90a, and this host has NVIDIA H200 (sm_80)"),
        ({"FAKE_CUDA_BYTES": "100000"}, "the GPU is out of memory: run a smaller batch"),
        ({"LD_LIBRARY_PATH": ""}, "has no NVIDIA driver (libcuda.so.1 is not found)"),
    ],
)
def test_what_is_wrong_with_a_gpu_is_one_line(
    gpu: dict[str, str], said: str, machine: dict[str, str], digits: Path, tmp_path: Path
) -> None:
    """Of a process of its own, as users see it; nothing is written."""
    np.save(tmp_path / "image.npy", np.zeros((1, 1, 8, 8), "float32"))
    given = ["--input", f"image={tmp_path}/image.npy", "--output-dir", str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", _CLI, "run", str(digits), *given],
        cwd=HERE.parent,
        env={**machine, **gpu},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "which",
    ["residual_network-fp32", "transformer-fp16", "contract", "replayed_as", "tuned", "fault_of"],
)
def test_what_needs_a_gpu_passes_on_the_fake(machine: dict[str, str], which: str) -> None:
    said = ran(machine, "-m", "pytest", "-q", "-m", "gpu", "test_gpu.py", "-k", which)
    assert "1 passed" in said


def test_the_runtime_library_of_a_wheel_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    wheel = tmp_path / "nvidia" / "cu13" / "lib"
    wheel.mkdir(parents=True)
    (wheel / "libcudart.so.13").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "nvidia", raising=False)
    assert wheel / "libcudart.so.13" in list(runtime.shipped())


@pytest.mark.parametrize(
    ("fails", "said"),
    [("libcudart", "libcudart.so.13 is not found"), ("tvm_runtime", "TVM's runtime for CUDA")],
)
def test_what_cannot_be_loaded_is_told(
    fails: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, *_: Any) -> None:
        if fails in name:
            raise OSError("no such file")

    monkeypatch.setattr(ctypes, "CDLL", load)
    with pytest.raises(NoGpuError, match=said):
        runtime.ready.__wrapped__()


_HOST_CALLS = """
import numpy as np
import onnxruntime
from region_models import network
from hybridc.compiler import driver
from hybridc.compiler.runtime.session import InferenceSession

model = network("Loop", "DeformConv")
made = driver.compile(model, target="cuda", verify="off")
assert any(note.startswith("2 regions are computed on the host") for note in made.report["notes"])
session = InferenceSession(made)
whole = onnxruntime.InferenceSession(model.SerializeToString())
for seed in range(4):
    x = np.random.default_rng(seed).standard_normal((1, 3, 8, 8)).astype("float32")
    for got, want in zip(session.run(None, {"x": x}), whole.run(None, {"x": x}), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)
assert session._main.notes == ["calls are not replayed as a graph: the host computes a part of it"]
print("done")
"""


def test_what_only_the_host_computes_is_computed_there(machine: dict[str, str]) -> None:
    """ONNX Runtime's parts of a model, with copies around them."""
    assert ran(machine, "-c", _HOST_CALLS).strip().endswith("done")


def test_kernels_are_timed_by_the_gpus_clock_and_set_against_its_peaks(
    machine: dict[str, str], tmp_path: Path
) -> None:
    model, made = HERE.parent / "examples" / "digits" / "digits.onnx", str(tmp_path / "d.hyb")
    ran(machine, "-c", _CLI, "compile", str(model), "--target", "sm_90a", "-o", made)
    timed = ("bench", made, "--kernels", "--seconds", "0.02", "--repeat", "1")
    said = ran(machine, "-c", _CLI, *timed)
    assert "989 TFLOP/s fp16" in said
    assert "cuda-windows" in said
