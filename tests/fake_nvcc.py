"""A compiler of CUDA C++ for the GPU of `fake_cuda.cpp`: what it makes runs in the emulator.

Called as nvcc is: `nvcc -cubin … -o OUT SOURCE`; the cubin is a shared library in which
`launch_NAME` runs a kernel.  `nvcc --prepare FOLDER` compiles the emulator's own part, once.
"""

import subprocess
import sys
from pathlib import Path

import cuda_text

HERE = Path(__file__).parent
_FLAGS = ["-O1", "-std=c++17", "-fno-strict-aliasing", "-w", "-fPIC"]
_HEADER, _RUN = "emulator.h", "run.o"
# Nobody watches the accesses here: that takes long, and other tests do it.
_UNWATCHED = """
void watch_arrays(void* const*, const size_t*, int, void*, size_t) {}
void watch_launch() {}
void watch_blocks(int, int, int, const void*, size_t, const void*, size_t) {}
void watch_thread(int) {}
void watch_barrier(Meeting) {}
void watch_fence() {}
void watch_async_read(const void*, size_t) {}
void watch_read(const void*, size_t) {}
void watch_write(const void*, size_t) {}
void watch_copy(const void*, size_t, bool) {}
const char* watch_told() { return nullptr; }
"""


def main(given: list[str]) -> int:
    """Do as nvcc does."""
    if given == ["--version"]:
        print("Cuda compilation tools, release 13.0, V13.0.0 (emulated)")
        return 0
    folder = Path(sys.argv[1])
    if given == ["--prepare"]:
        both = ("cuda_emulator.h", "cuda_emulator_prelude.h")
        (folder / _HEADER).write_text("\n".join(f'#include "{HERE / name}"' for name in both))
        header = ("-x", "c++-header", folder / _HEADER, "-o", folder / f"{_HEADER}.gch")
        run = ("-c", HERE / "cuda_emulator_run.cpp", "-o", folder / _RUN)
        return _compile(*header) or _compile(*run)
    source, out = Path(given[-1]), given[given.index("-o") + 1]
    kernels = cuda_text.emulated(source.read_text())
    named, clusters = cuda_text.parameters(kernels), cuda_text.clusters(kernels)
    unit = source.with_suffix(".cpp")
    launchers = (_launcher(name, given, clusters[name]) for name, given in named.items())
    unit.write_text("\n".join([kernels, _UNWATCHED, *launchers]))
    for name in named:
        print(f"ptxas info    : Compiling entry function '{name}' for 'emulated'", file=sys.stderr)
        print("ptxas info    : Used 32 registers, used 1 barriers", file=sys.stderr)
    return _compile("-shared", "-include", folder / _HEADER, unit, folder / _RUN, "-o", out)


def _launcher(name: str, parameters: list[tuple[str, str]], blocks: int) -> str:
    """A function that runs a kernel; 700 (an illegal address) where an array is not on the GPU."""
    kinds = [kind if "*" not in name else f"{kind}*" for kind, name in parameters]
    checks = [
        f"  if (!is_here(*static_cast<void**>(given[{place}]))) return 700;"
        for place, kind in enumerate(kinds)
        if "*" in kind
    ]
    passed = ", ".join(f"*static_cast<{kind}*>(given[{i}])" for i, kind in enumerate(kinds))
    return "\n".join(
        [
            f'extern "C" const int count_{name} = {len(kinds)};',
            f'extern "C" int launch_{name}(const unsigned* grid, const unsigned* block,',
            "    size_t shared, void** given, bool (*is_here)(const void*)) {",
            *checks,
            "  emulated::fault = nullptr;",
            "  emulated::launch({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]},",
            f"      shared, 0, [=] {{ {name}({passed}); }}, {blocks});",
            '  if (emulated::fault) std::fprintf(stderr, "%s\\n", emulated::fault);',
            "  return emulated::fault ? 719 : 0;",
            "}",
        ]
    )


def _compile(*arguments: object) -> int:
    return subprocess.run(["g++", *_FLAGS, *map(str, arguments)], check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[2:]))
