"""What this machine offers, read from the operating system; nothing here imports TVM."""

import os
import re
from functools import cache
from pathlib import Path

from hybridc.compiler.errors import InputError
from hybridc.compiler.hardware import cpuid
from hybridc.compiler.hardware.cores import read, usable

# Linux's names of the instruction sets that compiled code may use, with LLVM's.  By the first ones
# kernels are chosen and vectorised; of the others LLVM may use any, and none makes loops faster.
_CHOSEN_BY = {
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
_OTHERS = {
    "popcnt": "popcnt",
    "movbe": "movbe",
    "abm": "lzcnt",
    "bmi1": "bmi",
    "avx512ifma": "avx512ifma",
    "avx512vbmi": "avx512vbmi",
    "avx512_vbmi2": "avx512vbmi2",
    "avx512_bitalg": "avx512bitalg",
    "avx512_vpopcntdq": "avx512vpopcntdq",
    "avx512_vp2intersect": "avx512vp2intersect",
    "avx10_1": "avx10.1",
    "avx10_2": "avx10.2",
    "gfni": "gfni",
    "vaes": "vaes",
    "vpclmulqdq": "vpclmulqdq",
    "avx_vnni_int8": "avxvnniint8",
    "avx_vnni_int16": "avxvnniint16",
    "avx_ifma": "avxifma",
    "avx_ne_convert": "avxneconvert",
    "amx_int8": "amx-int8",
    "amx_bf16": "amx-bf16",
    "amx_fp16": "amx-fp16",
    "amx_complex": "amx-complex",
    "fma4": "fma4",
    "xop": "xop",
    "tbm": "tbm",
    "sse4a": "sse4a",
}
# Parts of APX, for whose registers Linux has one flag.
_APX = ("ccmp", "egpr", "ndd", "nf", "ppx", "push2pop2", "zu")
SPEED_FEATURES = frozenset(_CHOSEN_BY.values())
ISA_FEATURES = SPEED_FEATURES | {*_OTHERS.values(), *_APX}
_CPUS = Path("/sys/devices/system/cpu")
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30}
_USUAL_CACHES = (32 * 2**10, 2**20, 16 * 2**20)


@cache
def cpu_features() -> frozenset[str]:
    """Instruction sets of this CPU that compiled code may use, by LLVM's names."""
    match = re.search(r"^flags\s*:(.*)$", read(Path("/proc/cpuinfo")), re.MULTILINE)
    if match is None:  # no /proc, or that of another CPU, which an emulator runs on
        return cpuid.features() & ISA_FEATURES
    flags = match.group(1).split()
    found = {llvm for linux, llvm in (_CHOSEN_BY | _OTHERS).items() if linux in flags}
    return frozenset(found | {*(_APX if "apx" in flags else ())})


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
    """Bytes of the L1 data, L2 and L3 caches; a usual size where the system does not say.

    No level is smaller than the one before it.
    """
    found = known_caches()
    l1, l2, l3 = (found.get(str(level), usual) for level, usual in enumerate(_USUAL_CACHES, 1))
    return l1, max(l1, l2), max(l1, l2, l3)


def known_caches() -> dict[str, int]:
    """Bytes of the caches of data that the system tells, by level.

    They are those of the first CPU that this process may run on: others may be offline.
    """
    found: dict[str, int] = {}
    for index in sorted((_CPUS / f"cpu{min(allowed_cpus())}/cache").glob("index*")):
        level, kind = read(index / "level").strip(), read(index / "type").strip()
        size = read(index / "size").strip()
        number, unit = size[:-1], size[-1:]
        if kind != "Instruction" and unit in _UNITS and number.isdigit() and int(number):
            found[level] = int(number) * _UNITS[unit]
    return found
