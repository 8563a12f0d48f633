"""What this machine offers, read from the operating system; nothing here imports TVM."""

import os
import re
from functools import cache
from pathlib import Path

from hybridc.compiler.errors import InputError
from hybridc.compiler.hardware.cores import read, usable

# Linux's names of the instruction sets that compiled code may use, with LLVM's.
_LLVM_NAMES = {
    "popcnt": "popcnt",
    "movbe": "movbe",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "sse4_2": "sse4.2",
    "avx": "avx",
    "avx2": "avx2",
    "fma": "fma",
    "f16c": "f16c",
    "bmi2": "bmi2",
    "avx512f": "avx512f",
    "avx512bw": "avx512bw",
    "avx512cd": "avx512cd",
    "avx512dq": "avx512dq",
    "avx512vl": "avx512vl",
    "avx512_vnni": "avx512vnni",
    "avx512_bf16": "avx512bf16",
    "avx512_fp16": "avx512fp16",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_vp2intersect": "avx512vp2intersect",
    "gfni": "gfni",
    "vaes": "vaes",
    "vpclmulqdq": "vpclmulqdq",
    "avx_vnni": "avxvnni",
    "avx_vnni_int8": "avxvnniint8",
    "avx_vnni_int16": "avxvnniint16",
    "avx_ifma": "avxifma",
    "avx_ne_convert": "avxneconvert",
    "amx_tile": "amx-tile",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "amx_fp16": "amx-fp16",
    "amx_complex": "amx-complex",
}
ISA_FEATURES = frozenset(_LLVM_NAMES.values())
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@cache
def cpu_features() -> frozenset[str]:
    """Instruction sets of this CPU that compiled code may use, by LLVM's names."""
    match = re.search(r"^flags\s*:(.*)$", read(Path("/proc/cpuinfo")), re.MULTILINE)
    flags = match.group(1).split() if match else []
    return frozenset(llvm for linux, llvm in _LLVM_NAMES.items() if linux in flags)


@cache
def cpu_model() -> str:
    """The CPU's name for people, such as `AMD EPYC`."""
    match = re.search(r"^model name\s*:\s*(.*)$", read(Path("/proc/cpuinfo")), re.MULTILINE)
    return match.group(1).strip() if match else "unknown"


@cache
def cores() -> int:
    """Threads that this process should run: see `cores.usable`."""
    return usable(Path("/"), allowed_cpus())


def allowed_cpus() -> frozenset[int]:
    """The CPUs that this process may run on: its affinity, which a cpuset narrows too."""
    return frozenset(os.sched_getaffinity(0))


def check_workers(wanted: int | None) -> None:
    """Raise InputError if more processes are to work at once than there are CPUs for them."""
    _check("workers", wanted)


def check_threads(wanted: int | None) -> None:
    """Raise InputError if kernels are to be measured on more threads than there are CPUs."""
    _check("threads", wanted)


def _check(what: str, wanted: int | None) -> None:
    cpus = len(allowed_cpus())
    if wanted is not None and wanted > cpus:
        raise InputError(f"{what}={wanted} requested, but this process may use only {cpus} CPUs")


@cache
def cache_sizes() -> tuple[int, int, int]:
    """Bytes of the L1 data, L2 and L3 caches; a usual size where the system does not say."""
    found: dict[str, int] = {}
    for index in sorted(_CACHES.glob("index*")):
        level, kind = read(index / "level").strip(), read(index / "type").strip()
        size = read(index / "size").strip()
        if kind != "Instruction" and size[-1:] in _UNITS:
            found[level] = int(size[:-1]) * _UNITS[size[-1]]
    return found.get("1", 32 * 2**10), found.get("2", 2**20), found.get("3", 16 * 2**20)
