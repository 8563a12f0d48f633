"""What this machine offers, read from the operating system; nothing here imports TVM."""

import os
import re
from functools import cache
from pathlib import Path

import psutil

# Linux's names of the instruction sets that matter here, with LLVM's.
_LLVM_NAMES = {
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
    "avx_vnni": "avxvnni",
    "amx_tile": "amx-tile",
}
ISA_FEATURES = frozenset(_LLVM_NAMES.values())
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}


@cache
def cpu_features() -> frozenset[str]:
    """Instruction sets of this CPU that compiled code may use, by LLVM's names."""
    match = re.search(r"^flags\s*:(.*)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    flags = match.group(1).split() if match else []
    return frozenset(llvm for linux, llvm in _LLVM_NAMES.items() if linux in flags)


@cache
def cpu_model() -> str:
    """The CPU's name for people, such as `AMD EPYC`."""
    match = re.search(r"^model name\s*:\s*(.*)$", _read(Path("/proc/cpuinfo")), re.MULTILINE)
    return match.group(1).strip() if match else "unknown"


@cache
def cores() -> int:
    """Physical cores that this process may use: affinity and cgroup quota counted in."""
    allowed = len(os.sched_getaffinity(0))
    logical = psutil.cpu_count(logical=True) or allowed
    physical = psutil.cpu_count(logical=False) or logical
    if physical < logical:
        # With two hyper-threads a core, a second thread on a core adds nothing to dense kernels.
        allowed = min(allowed, physical)
    return max(1, min(allowed, _quota() or allowed))


@cache
def cache_sizes() -> tuple[int, int, int]:
    """Bytes of the L1 data, L2 and L3 caches; a usual size where the system does not say."""
    found: dict[str, int] = {}
    for index in sorted(_CACHES.glob("index*")):
        level, kind = _read(index / "level").strip(), _read(index / "type").strip()
        size = _read(index / "size").strip()
        if kind != "Instruction" and size[-1:] in _UNITS:
            found[level] = int(size[:-1]) * _UNITS[size[-1]]
    return found.get("1", 32 * 2**10), found.get("2", 2**20), found.get("3", 16 * 2**20)


def _quota() -> int | None:
    """Cores that a cgroup limit leaves, rounded up; None without a limit."""
    version2 = _read(Path("/sys/fs/cgroup/cpu.max")).split()
    if version2 and version2[0].isdigit():
        return -(-int(version2[0]) // int(version2[1]))
    root = Path("/sys/fs/cgroup/cpu")
    quota, period = _read(root / "cpu.cfs_quota_us"), _read(root / "cpu.cfs_period_us")
    if quota.strip().isdigit() and period.strip().isdigit():
        return -(-int(quota) // int(period))
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
