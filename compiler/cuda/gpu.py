"""What an NVIDIA GPU offers: limits of its architecture, and size and peaks of a board.

Limits are those of "Compute Capabilities" in NVIDIA's CUDA C++ Programming Guide 13.0.  Peaks are
dense, without sparsity, from the data sheets of the boards (SXM where there are several).
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from hybridc.compiler.errors import InputError, hint

WARP = 32  # threads that run in step, on all architectures so far
MOST_THREADS = 1024  # of one block
MOST_REGISTERS = 255  # of 32 bits, of one thread
# The feature of blocks that read each other's shared memory, and how many may do so anywhere.
CLUSTERS = "clusters"
MOST_CLUSTERED = 8
_REGISTERS_PER_SM = 65_536
_STATIC_SHARED = 48 * 2**10  # a block gets more only as dynamic shared memory
_FEW_CORES, _MANY_CORES = 64, 128
_KIB = 2**10
_TERA = 1e12
_GIGA = 1e9


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    `arch` is what code is generated for (`sm_90a`; the suffix is for instructions that no later
    architecture has).  `shared_per_sm`, `shared_per_block`, `l2` are bytes; `fp32`, `tf32`, `half`
    are FLOP/s of multiply-adds on CUDA cores and tensor cores, `bandwidth` bytes/s of its memory.
    """

    name: str
    arch: str
    sms: int
    shared_per_sm: int
    shared_per_block: int
    threads_per_sm: int
    blocks_per_sm: int
    l2: int
    fp32: float
    tf32: float
    half: float
    bandwidth: float

    @property
    def capability(self) -> int:
        """The compute capability as a number: 90 for `sm_90a`."""
        return int("".join(c for c in self.arch if c.isdigit()))

    @property
    def registers_per_sm(self) -> int:
        """Registers of 32 bits that the threads of a multiprocessor share."""
        return _REGISTERS_PER_SM

    @property
    def static_shared(self) -> int:
        """Bytes of shared memory that a block may have without asking."""
        return _STATIC_SHARED

    @property
    def cores_per_sm(self) -> int:
        """Multiply-adds of float32 that a multiprocessor starts in a cycle."""
        return _FEW_CORES if self.capability <= 80 else _MANY_CORES

    @property
    def clock(self) -> float:
        """Cycles a second at which the peaks hold."""
        return self.fp32 / (2 * self.cores_per_sm * self.sms)

    @cached_property
    def features(self) -> frozenset[str]:
        """What its instructions can do beyond those of sm_75."""
        found = {"mma", "ldmatrix"}
        if self.capability >= 80:
            found |= {"cp.async", "mma.bf16", "mma.tf32", "mma.int8"}
        if self.capability >= 90:
            found.add(CLUSTERS)
        if self.arch == "sm_90a":
            found |= {"wgmma", "tma"}
        return frozenset(found)

    def describe(self) -> dict[str, Any]:
        """The GPU as JSON data, for manifests and reports."""
        return asdict(self)


@dataclass(frozen=True)
class _Limits:
    """Of an architecture: KiB of shared memory, threads and blocks of a multiprocessor."""

    shared_per_sm: int
    shared_per_block: int
    threads: int
    blocks: int


_ARCHITECTURES: Mapping[int, _Limits] = MappingProxyType(
    {
        75: _Limits(64, 64, 1024, 16),
        80: _Limits(164, 163, 2048, 32),
        86: _Limits(100, 99, 1536, 16),
        89: _Limits(100, 99, 1536, 24),
        90: _Limits(228, 227, 2048, 32),
        100: _Limits(228, 227, 2048, 32),
        120: _Limits(100, 99, 1536, 24),
    }
)
# Architectures with instructions that only they have: with an `a`, code runs nowhere else.
_SPECIFIC = frozenset({90, 100, 120})


def _board(  # noqa: PLR0913, PLR0917 - a line of the table below
    name: str, arch: str, sms: int, l2_mib: float, tflops: Any, gb_per_s: float
) -> Gpu:
    """A board by its data sheet; `tflops` are fp32, tf32 and fp16 with sums in fp32."""
    limits = _ARCHITECTURES[int("".join(c for c in arch if c.isdigit()))]
    fp32, tf32, half = (value * _TERA for value in tflops)
    return Gpu(
        name=name,
        arch=arch,
        sms=sms,
        shared_per_sm=limits.shared_per_sm * _KIB,
        shared_per_block=limits.shared_per_block * _KIB,
        threads_per_sm=limits.threads,
        blocks_per_sm=limits.blocks,
        l2=int(l2_mib * _KIB * _KIB),
        fp32=fp32,
        tf32=tf32,
        half=half,
        bandwidth=gb_per_s * _GIGA,
    )


# The first board of an architecture stands for it where only the architecture is named.
_BOARDS = (
    _board("t4", "sm_75", 40, 4, (8.1, 0.0, 65.0), 320),
    _board("a100", "sm_80", 108, 40, (19.5, 156.0, 312.0), 1555),
    _board("a100-80gb", "sm_80", 108, 40, (19.5, 156.0, 312.0), 2039),
    _board("a10", "sm_86", 72, 6, (31.2, 62.5, 125.0), 600),
    _board("rtx-3090", "sm_86", 82, 6, (35.6, 35.6, 71.0), 936),
    _board("l4", "sm_89", 58, 48, (30.3, 60.0, 121.0), 300),
    _board("l40s", "sm_89", 142, 96, (91.6, 183.0, 362.0), 864),
    _board("rtx-4090", "sm_89", 128, 72, (82.6, 82.6, 165.2), 1008),
    _board("h100", "sm_90a", 132, 50, (66.9, 494.7, 989.4), 3352),
    _board("h100-pcie", "sm_90a", 114, 50, (51.2, 378.0, 756.0), 2000),
    _board("h200", "sm_90a", 132, 50, (66.9, 494.7, 989.4), 4800),
    _board("b200", "sm_100", 148, 126, (80.0, 1100.0, 2250.0), 8000),
    _board("rtx-5090", "sm_120", 170, 96, (104.8, 104.8, 209.5), 1792),
)
_PREFIX = "nvidia/"


def names() -> tuple[str, ...]:
    """What may be named as a target: boards and architectures."""
    boards = tuple(f"{_PREFIX}{board.name}" for board in _BOARDS)
    plain = tuple(f"sm_{number}" for number in _ARCHITECTURES)
    return (*boards, *plain, *(f"sm_{number}a" for number in sorted(_SPECIFIC)))


def is_name(text: str) -> bool:
    """Whether a target's name speaks of an NVIDIA GPU, known or not."""
    return text.startswith((_PREFIX, "sm_"))


def named(text: str) -> Gpu:
    """The GPU of a board's name (`nvidia/h100`) or an architecture's (`sm_90a`).

    Raises InputError where there is none of the name.
    """
    if text not in names():
        raise InputError(f"no GPU is known as {text!r}; {hint(text, names())}")
    if text.startswith(_PREFIX):
        return next(board for board in _BOARDS if f"{_PREFIX}{board.name}" == text)
    return of_arch(text)


def of_arch(arch: str) -> Gpu:
    """The board that stands for an architecture, with code for just this architecture."""
    plain = arch.removesuffix("a")
    board = next(board for board in _BOARDS if board.arch.removesuffix("a") == plain)
    return replace(board, arch=arch)


def from_json(told: Any) -> Gpu:
    """The GPU that `Gpu.describe` told.  Raises InputError where it is no such thing."""
    try:
        return Gpu(**told)
    except TypeError:
        raise InputError(f'a target\'s "gpu" has the fields of one, got {told!r:.60}') from None


def board_like(name: str, capability: int) -> Gpu | None:
    """The known board that a driver calls `name`; None where the table has none of it."""
    # By whole words: a T400 is no T4, and an L40 no L4; boards of laptops have other peaks.
    told = set(name.lower().replace("-", " ").split())
    alike = [board for board in _BOARDS if board.capability == capability and "laptop" not in told]
    fitting = [board for board in alike if set(board.name.split("-")) <= told]
    return max(fitting, key=lambda board: len(board.name), default=None)


def specific(capability: int) -> str:
    """The architecture's name, with the suffix for its own instructions where we use them."""
    return f"sm_{capability}a" if capability == 90 else f"sm_{capability}"


def runs_on(arch: str, capability: int) -> bool:
    """Whether code for `arch` runs on a GPU: the same major version, and no later a minor one."""
    wanted = int("".join(c for c in arch if c.isdigit()))
    if arch.endswith("a"):
        return wanted == capability
    return wanted // 10 == capability // 10 and wanted <= capability
