"""Forks of a process that has TVM, on a machine with a GPU: the fake one."""

import subprocess
import sys
from pathlib import Path

import fake_cuda
import pytest
from cuda_emulator import needs_compiler

pytestmark = needs_compiler
HERE = Path(__file__).parent

# As much of torch as TVM's bindings ask for; as torch it starts the driver to look for a GPU,
# unless it may ask NVML.
_TORCH = """
import ctypes
import os


class dtype: ...
class Tensor:
    __dlpack_c_exchange_api__ = None


def __getattr__(name):
    if name.startswith("_"):
        raise AttributeError(name)
    return dtype()


class cuda:
    @staticmethod
    def is_available():
        if os.getenv("PYTORCH_NVML_BASED_CUDA_CHECK") != "1":
            ctypes.CDLL("libcuda.so.1").cuInit(0)
        return True

    class Stream:
        __cuda_stream__ = None
"""
_FORK = """
import os, sys
FIRST
from hybridc.compiler.cuda import driver
from hybridc.compiler.runtime import tensors
assert "torch" in sys.modules
assert "PYTORCH_NVML_BASED_CUDA_CHECK" not in os.environ
if not os.fork():
    try:
        print(driver.first().gpu.name, flush=True)
    except driver.NoGpuError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A machine with the fake GPU and the torch above."""
    folder = tmp_path_factory.mktemp("fake")
    found = fake_cuda.environment(folder)
    torch = tmp_path_factory.mktemp("packages") / "torch"
    torch.mkdir()
    (torch / "__init__.py").write_text(_TORCH)
    (torch / "version.py").write_text("cuda = '13.0'\n")
    path = (str(torch.parent), str(HERE.parent), found.get("PYTHONPATH", ""))
    return {**found, "PYTHONPATH": ":".join(path)}


@pytest.mark.parametrize(
    ("first", "said"),
    [
        ("", "NVIDIA H200"),
        ("import tvm", "this process is a fork of one that had started NVIDIA's driver"),
    ],
)
def test_a_fork_has_the_gpu_unless_others_started_it(
    machine: dict[str, str], first: str, said: str
) -> None:
    """TVM, imported by a program before us, starts it."""
    done = subprocess.run(
        [sys.executable, "-c", _FORK.replace("FIRST", first)],
        env=machine,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(said)
