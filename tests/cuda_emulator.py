"""Run the CUDA source of scheduled kernels on the CPU, thread by thread: see `cuda_emulator.h`.

What is run is the text that nvcc would get, after all of TVM's lowering, with its barriers and
warp-wide functions.  Only the prelude's own functions, which are PTX, have a second form, written
from the PTX manual.  Needs a C++ compiler.
"""

import ctypes
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm

from hybridc.compiler.cuda import codegen, launches
from hybridc.compiler.cuda.resources import Launch
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
# Threads in order, in reverse, and mixed: what differs between these is a race.
ORDERS = (0, 1, 2)
_KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\(\d+\) )?(\w+)\(([^)]*)\)')
_DYNAMIC = re.compile(r"extern __shared__ (?:__align__\(\d+\) )?([\w ]+?) (\w+)\[\];")

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")


def run(func: PrimFunc, arrays: Sequence[Array], target: Target, order: int = 0) -> list[Array]:
    """Run a scheduled kernel's launches one after another; the arrays as they are behind them.

    Kernels whose launches pass tensors that are no parameters are not supported.
    """
    source, found = source_of(func, target)
    held = [np.array(array) for array in arrays]
    names = [str(param.name) for param in func.params]
    library = _library(_program(source, found, names))
    pointers = (ctypes.c_void_p * len(held))(*(array.ctypes.data for array in held))
    library.run(pointers, ctypes.c_int(order))
    return held


def source_of(func: PrimFunc, target: Target) -> tuple[str, tuple[Launch, ...]]:
    """The CUDA source of a scheduled kernel as nvcc would get it, and its launches."""
    module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    return codegen.source(module, target), launches.of_module(module, target)


def _program(source: str, found: Sequence[Launch], names: Sequence[str]) -> str:
    """A C++ program with a function `run(arrays, order)` that launches the kernels."""
    kernels = source[source.index('extern "C" __global__') :]
    kernels = _DYNAMIC.sub(r"\1* \2 = reinterpret_cast<\1*>(emulated::shared_base());", kernels)
    calls = [_call(kernels, launch, names) for launch in found]
    return "\n".join(
        [
            f'#include "{HERE}/cuda_emulator.h"',
            f'#include "{HERE}/cuda_emulator_prelude.h"',
            kernels,
            'extern "C" void run(void** arrays, int order) {',
            *calls,
            "}",
        ]
    )


def _call(kernels: str, launch: Launch, names: Sequence[str]) -> str:
    match = next(m for m in _KERNEL.finditer(kernels) if m.group(1) == launch.kernel)
    arguments: list[str] = []
    for parameter in match.group(2).split(","):
        kind, _, name = parameter.replace("__restrict__", "").strip().rpartition(" ")
        place = names.index(re.sub(r"_ptr$", "", name.strip("* ")))
        arguments.append(f"reinterpret_cast<{kind}>(arrays[{place}])")
    grid, threads = (f"Index{{{', '.join(map(str, s))}}}" for s in (launch.grid, launch.threads))
    return (
        f"  emulated::launch({grid}, {threads}, {launch.shared}, order,"
        f" [=] {{ {launch.kernel}({', '.join(arguments)}); }});"
    )


@cache
def _folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="hybridc-emulator-"))


def _library(program: str) -> Any:
    assert COMPILER is not None
    path = _folder() / f"{hashlib.sha256(program.encode()).hexdigest()[:16]}.so"
    if not path.exists():
        text = path.with_suffix(".cpp")
        text.write_text(program)
        # No fused multiply-adds of the host's, and no assumption that different types lie apart.
        flags = ["-O1", "-std=c++17", "-fno-strict-aliasing", "-w", "-shared", "-fPIC"]
        subprocess.run([COMPILER, *flags, str(text), "-o", str(path)], check=True, timeout=120)
    return ctypes.CDLL(str(path))
