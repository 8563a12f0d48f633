"""From CUDA C++ to machine code: nvcc where a toolkit is installed, else NVRTC from PyPI.

Both give a cubin, code for one architecture, and what ptxas says of each kernel's resources.
Neither may trade accuracy for speed: division, square roots and denormals are IEEE's.
"""

import importlib.util
import shutil
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from hybridc.compiler import settings
from hybridc.compiler.cuda import nvrtc
from hybridc.compiler.errors import InputError, PassError
from hybridc.compiler.filesystem import scratch

_SECONDS = 1800  # of one compilation: large models have hundreds of kernels
_FLAGS = ("-std=c++17", "--expt-relaxed-constexpr")
_VERBOSE = "--ptxas-options=-v"
EXTRA = "pip install 'hybridc[cuda]'"


@dataclass(frozen=True)
class Compiled:
    """A cubin, and what ptxas said of its kernels."""

    cubin: bytes
    log: str


@dataclass(frozen=True)
class Toolchain:
    """A compiler of CUDA C++: `nvcc` by its path, or `nvrtc` by that of its library."""

    name: str
    path: Path
    includes: tuple[Path, ...] = ()

    def compile(self, source: str, arch: str) -> Compiled:
        """Machine code for an architecture.  Raises PassError where the source does not compile."""
        if self.name == "nvcc":
            return _nvcc(self.path, source, arch)
        made = nvrtc.compile_source(self.path, source, arch, self.includes)
        return Compiled(*made)

    def describe(self) -> str:
        """`nvcc 13.0 (/usr/local/cuda/bin/nvcc)`."""
        version = _nvcc_version(self.path) if self.name == "nvcc" else nvrtc.version(self.path)
        return f"{self.name} {version} ({self.path})"


def find() -> Toolchain:
    """The compiler that is used.  Raises InputError where there is none, with the cure."""
    if (nvcc := _find_nvcc()) is not None:
        return Toolchain("nvcc", nvcc)
    library, includes = _find_nvrtc()
    if library is not None:
        return Toolchain("nvrtc", library, includes)
    raise InputError(
        f"no compiler for CUDA: neither nvcc on the PATH or in CUDA_HOME, nor NVRTC; {EXTRA}"
    )


def _find_nvcc() -> Path | None:
    home = settings.cuda_home()
    if home is not None and (home / "bin" / "nvcc").is_file():
        return home / "bin" / "nvcc"
    found = shutil.which("nvcc")
    return Path(found) if found else None


def _find_nvrtc() -> tuple[Path | None, tuple[Path, ...]]:
    """The library in NVIDIA's wheels, and their folders of headers."""
    spec = importlib.util.find_spec("nvidia")
    roots = [Path(root) for root in (spec.submodule_search_locations or ())] if spec else []
    libraries = [path for root in roots for path in sorted(root.glob("*/lib/libnvrtc.so.*"))]
    includes = [path for root in roots for path in sorted(root.glob("*/include"))]
    includes += [path for root in includes if (path := root / "cccl").is_dir()]
    plain = [path for path in libraries if ".alt." not in path.name]
    return (plain[-1] if plain else None), tuple(includes)


def _nvcc(path: Path, source: str, arch: str) -> Compiled:
    with scratch.Folder() as folder:
        # One name in a folder of its own: what nvcc writes down of names is always the same.
        (Path(folder) / "kernels.cu").write_text(source)
        command = [str(path), "-cubin", "-O3", f"-arch={arch}", *_FLAGS, _VERBOSE]
        try:
            done = subprocess.run(
                [*command, "-o", "kernels.cubin", "kernels.cu"],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise PassError(f"nvcc could not compile the kernels: {error}") from error
        if done.returncode:
            raise PassError(f"nvcc refuses the kernels for {arch}: {_cause(done.stderr)}")
        return Compiled((Path(folder) / "kernels.cubin").read_bytes(), done.stderr)


def _cause(said: str) -> str:
    """The first line that tells of an error."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return next((line for line in lines if "error" in line or "fatal" in line), "no message")


@cache
def _nvcc_version(path: Path) -> str:
    try:
        said = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=60, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return "of unknown version"
    return said.partition("release ")[2].partition(",")[0] or "of unknown version"
