"""A machine with a GPU that is none: NVIDIA's libraries and compiler as `fake_cuda.cpp` has them.

TVM's own runtime for CUDA runs on it, with all that it does of loading, launching and copying.
"""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
_DRIVER, _RUNTIME = "libcuda.so.1", "libcudart.so.13"


def environment(folder: Path) -> dict[str, str]:
    """The environment of a process that shall find them, made in an empty folder."""
    made = _made(folder)
    libraries = [made / "driver", made / "toolkit" / "lib64"]
    return {
        **os.environ,
        "LD_LIBRARY_PATH": ":".join(map(str, libraries)),
        "CUDA_HOME": str(made / "toolkit"),
        "TVM_NUM_THREADS": "1",
        "HYBRIDC_CACHE": str(folder / "cache"),
    }


@cache
def _made(folder: Path) -> Path:
    libraries, binaries, driver = (
        folder / "toolkit/lib64",
        folder / "toolkit/bin",
        folder / "driver",
    )
    for each in (libraries, binaries, driver):
        each.mkdir(parents=True)
    versions = folder / "versions"
    versions.write_text(f"{_RUNTIME} {{ global: *; }};")  # TVM's asks for symbols of this version
    shared = ["g++", "-O1", "-std=c++17", "-w", "-fPIC", "-shared"]
    source = [f"-Wl,--version-script={versions}", str(HERE / "fake_cuda.cpp")]
    _run(*shared, f"-Wl,-soname,{_RUNTIME}", *source, "-o", str(libraries / _RUNTIME))
    # All is in one library, as it is one GPU; the driver's is a name for it.
    empty = folder / "empty.cpp"
    empty.write_text("")
    linked = ["-Wl,--no-as-needed", str(libraries / _RUNTIME), f"-Wl,-rpath,{libraries}"]
    _run(*shared, f"-Wl,-soname,{_DRIVER}", str(empty), *linked, "-o", str(driver / _DRIVER))
    nvcc = binaries / "nvcc"
    script = HERE / "fake_nvcc.py"
    nvcc.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "{binaries}" "$@"\n')
    nvcc.chmod(0o755)
    _run(str(nvcc), "--prepare")
    return folder


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=600)
