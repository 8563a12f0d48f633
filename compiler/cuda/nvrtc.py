"""NVRTC, NVIDIA's compiler as a library, by ctypes."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hybridc.compiler.errors import InputError, PassError

# What nvcc includes and defines by itself; TVM's code wants the fixed-width integers.
_PREAMBLE = """#include <cuda/std/cstdint>
#include <cuda/std/limits>
#ifndef INFINITY
#define INFINITY (::cuda::std::numeric_limits<float>::infinity())
#endif
"""
_FLAGS = (
    "-std=c++17",
    "-default-device",
    "--device-int128",
    "--ptxas-options=-v",
    # Headers of narrow types use these before they define them.
    "-D__NV_SILENCE_DEPRECATION_BEGIN=",
    "-D__NV_SILENCE_DEPRECATION_END=",
    "-D__NV_SILENCE_HOST_DEPRECATION_BEGIN=",
    "-D__NV_SILENCE_HOST_DEPRECATION_END=",
)


def compile_source(
    library: Path, source: str, arch: str, includes: Sequence[Path]
) -> tuple[bytes, str]:
    """The cubin of a source for an architecture, and the log.

    Raises PassError where it does not compile, and InputError where NVRTC cannot be loaded.
    """
    api = _load(library)
    program = ctypes.c_void_p()
    text = f"{_PREAMBLE}{source}".encode()
    _check(
        api,
        api.nvrtcCreateProgram(ctypes.byref(program), text, b"kernels.cu", 0, None, None),
        "take the source",
    )
    try:
        flags = [f"--gpu-architecture={arch}", *_FLAGS, *(f"-I{path}" for path in includes)]
        options = (ctypes.c_char_p * len(flags))(*(flag.encode() for flag in flags))
        status = api.nvrtcCompileProgram(program, len(flags), options)
        log = _bytes(api, program, api.nvrtcGetProgramLogSize, api.nvrtcGetProgramLog)
        said = log.rstrip(b"\0").decode(errors="replace")
        if status:
            lines = [line for line in said.splitlines() if "error" in line] or ["no message"]
            raise PassError(f"NVRTC refuses the kernels for {arch}: {lines[0]}")
        return _bytes(api, program, api.nvrtcGetCUBINSize, api.nvrtcGetCUBIN), said
    finally:
        api.nvrtcDestroyProgram(ctypes.byref(program))


def version(library: Path) -> str:
    """`13.0`.  Raises InputError where the library cannot be loaded."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    api = _load(library)
    _check(api, api.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)), "tell its version")
    return f"{major.value}.{minor.value}"


@cache
def _load(library: Path) -> Any:
    try:
        return ctypes.CDLL(str(library))
    except OSError as error:
        raise InputError(f"NVRTC cannot be loaded from {library}: {error}") from error


def _bytes(api: Any, program: Any, size_of: Callable[..., int], read: Callable[..., int]) -> bytes:
    size = ctypes.c_size_t()
    _check(api, size_of(program, ctypes.byref(size)), "tell a size")
    content = ctypes.create_string_buffer(size.value)
    _check(api, read(program, content), "give what it made")
    return content.raw


def _check(api: Any, status: int, what: str) -> None:
    if status:
        api.nvrtcGetErrorString.restype = ctypes.c_char_p
        reason = api.nvrtcGetErrorString(status).decode()
        raise PassError(f"NVRTC cannot {what}: {reason}")
