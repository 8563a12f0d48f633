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
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import cuda_text
import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm_ffi import structural_map, structural_visit

from hybridc.compiler.cuda import codegen, launches
from hybridc.compiler.cuda.resources import Launch
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.ir import memory
from hybridc.compiler.model import Array
from hybridc.compiler.target import Target

HERE = Path(__file__).parent
COMPILER = shutil.which("g++")
# Threads in order, in reverse, and mixed: what differs between these is a race.
ORDERS = (0, 1, 2)

# Each access calls what `cuda_emulator_watch.cpp` has for it.
_WATCHED = ("-fsanitize=thread", "--param", "tsan-instrument-func-entry-exit=0")
# Bytes at which CUDA aligns what it allocates, and those between arrays that nobody may touch.
_ALIGNED, _GAP = 256, 4096

needs_compiler = pytest.mark.skipif(COMPILER is None, reason="the emulator needs g++")


def run(func: PrimFunc, arrays: Sequence[Array], target: Target, order: int = 0) -> list[Array]:
    """Run a scheduled kernel's launches one after another; the arrays as they are behind them.

    Kernels whose launches pass tensors that are no parameters are not supported.
    """
    numbered = _numbered(func)
    source, found = source_of(numbered, target)
    workspaces = _workspaces(func)
    library = _library(_program(source, _host(numbered.body, found), list(workspaces), len(arrays)))
    given = [np.asarray(array) for array in arrays]
    room = _Room.of([*(array.nbytes for array in given), *workspaces.values()])
    held = [room.holding(place, array) for place, array in enumerate(given)]
    library.run.restype = ctypes.c_char_p
    fault = library.run(*room.arguments(), ctypes.c_int(order))
    assert fault is None, fault.decode()
    return [np.array(array) for array in held]


@dataclass(frozen=True)
class _Room:
    """One piece of memory with arrays in it, as CUDA aligns them, and nothing around each."""

    memory: Any
    places: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, sizes: Sequence[int]) -> "_Room":
        """Room for arrays of so many bytes."""
        ends = list(
            accumulate(
                sizes, lambda at, size: at + -(-size // _ALIGNED) * _ALIGNED + _GAP, initial=_GAP
            )
        )
        whole = np.full(ends[-1] + _ALIGNED, 0xA5, "uint8")
        skipped = -whole.ctypes.data % _ALIGNED
        return cls(whole[skipped:], tuple(ends[:-1]), tuple(sizes))

    def holding(self, place: int, array: Array) -> Array:
        """A copy of an array in its place."""
        made: Array = np.ndarray(array.shape, array.dtype, self.memory, self.places[place])
        made[...] = array
        return made

    def arguments(self) -> tuple[Any, ...]:
        """What the program's `run` is told: where each array lies, its size, how many, and all."""
        base, count = self.memory.ctypes.data, len(self.sizes)
        begins = (ctypes.c_void_p * count)(*(base + place for place in self.places))
        sizes = (ctypes.c_size_t * count)(*self.sizes)
        whole = ctypes.c_void_p(base), ctypes.c_size_t(self.memory.nbytes)
        return begins, sizes, ctypes.c_int(count), *whole


def _numbered(func: PrimFunc) -> PrimFunc:
    """The function with parameters whose names are their places."""
    buffers = {
        param: tirx.decl_buffer(param.shape, param.dtype, f"p{place}")
        for place, param in enumerate(func.params)
    }
    body = structural_map(func.body, (tvm.ir.Var, lambda var: buffers.get(var, var)))
    return tirx.PrimFunc(list(buffers.values()), body, func.ret_type, func.attrs)


def source_of(func: PrimFunc, target: Target) -> tuple[str, tuple[Launch, ...]]:
    """The CUDA source of a scheduled kernel as nvcc would get it, and its launches."""
    module = tvm.IRModule({"main": func.with_attr("global_symbol", "main")})
    return codegen.source(module, target), launches.of_module(module, target)


def _workspaces(func: PrimFunc) -> dict[str, int]:
    """What the host keeps between launches: buffers by name, with their bytes."""
    found = {
        str(buffer.name): int(np.prod([int(extent) for extent in buffer.shape]))
        for buffer in memory.kept_between_launches(func)
    }
    return {name: 8 * size for name, size in found.items()}


def _host(body: Any, found: Sequence[Launch]) -> list[str | Launch]:
    """What the host does: launches in their order, and C++ of the loops around them."""
    left, made = list(found), list[str | Launch]()

    def launch(node: Any, visitor: Any) -> None:
        if str(node.attr_key) == "thread_extent":
            made.append(left.pop(0))
        else:
            visitor.default_visit(node)

    def loop(node: Any, visitor: Any) -> None:
        if node.kind == tirx.ForKind.THREAD_BINDING:
            made.append(left.pop(0))
            return
        name = node.loop_var.name
        made.append(
            f"for (int {name} = {node.min}; {name} < {node.min + node.extent}; ++{name}) {{"
        )
        visitor.default_visit(node)
        made.append("}")

    structural_visit(body, [(tirx.AttrStmt, launch), (tirx.For, loop)])
    assert not left
    return made


def _program(
    source: str, host: Sequence[str | Launch], workspaces: Sequence[str], arrays: int
) -> str:
    """A C++ program with a function `run` that launches the kernels on arrays and workspaces."""
    kernels = cuda_text.emulated(source)
    calls = [step if isinstance(step, str) else _call(kernels, step) for step in host]
    return "\n".join(
        [
            kernels,
            'extern "C" const char* run(void** arrays, const size_t* sizes, int count, void* all,'
            " size_t bytes, int order) {",
            "  emulated::fault = nullptr;",
            "  watch_arrays(arrays, sizes, count, all, bytes);",
            *(f"  void* {name} = arrays[{arrays + i}];" for i, name in enumerate(workspaces)),
            *calls,
            "  return emulated::fault;",
            "}",
        ]
    )


def _call(kernels: str, launch: Launch) -> str:
    arguments: list[str] = []
    for kind, name in cuda_text.parameters(kernels)[launch.kernel]:
        if "*" not in kind + name:
            arguments.append(name)  # the variable of a loop around the launch
            continue
        plain = re.sub(r"_ptr(_\d+)?$", "", name.strip("* "))
        held = f"arrays[{plain[1:]}]" if re.fullmatch(r"p\d+", plain) else plain
        arguments.append(f"reinterpret_cast<{kind}>({held})")
    blocks = cuda_text.clusters(kernels)[launch.kernel]
    grid, threads = (f"Index{{{', '.join(map(str, s))}}}" for s in (launch.grid, launch.threads))
    return (
        f"  emulated::launch({grid}, {threads}, {launch.shared}, order,"
        f" [=] {{ {launch.kernel}({', '.join(arguments)}); }}, {blocks});"
    )


@cache
def _folder() -> Path:
    """A folder with the emulator's own part, compiled once."""
    folder = Path(tempfile.mkdtemp(prefix="hybridc-emulator-"))
    both = (HERE / name for name in ("cuda_emulator.h", "cuda_emulator_prelude.h"))
    header = folder / "emulator.h"
    header.write_text("\n".join(f'#include "{path}"' for path in both))
    _compile(*_WATCHED, "-x", "c++-header", str(header), "-o", f"{header}.gch")
    _compile("-c", str(HERE / "cuda_emulator_watch.cpp"), "-o", str(folder / "watch.o"))
    # Its accesses are watched as a program's own are.
    run = str(HERE / "cuda_emulator_run.cpp")
    _compile(*_WATCHED, "-c", run, "-o", str(folder / "run.o"))
    return folder


def _compile(*arguments: str) -> None:
    assert COMPILER is not None
    # No fused multiply-adds of the host's, and no assumption that different types lie apart.
    flags = ["-O1", "-std=c++17", "-fno-strict-aliasing", "-w", "-fPIC"]
    subprocess.run([COMPILER, *flags, *arguments], check=True, timeout=300)


def _library(program: str) -> Any:
    path = _folder() / f"{hashlib.sha256(program.encode()).hexdigest()[:16]}.so"
    if not path.exists():
        text = path.with_suffix(".cpp")
        text.write_text(program)
        header, unit = str(_folder() / "emulator.h"), str(path.with_suffix(".o"))
        _compile(*_WATCHED, "-c", "-include", header, str(text), "-o", unit)
        # Linked without the sanitizer's flag, that is, without its runtime.
        shared = [str(_folder() / name) for name in ("watch.o", "run.o")]
        _compile("-shared", unit, *shared, "-o", str(path))
    return ctypes.CDLL(str(path))
