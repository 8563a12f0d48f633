"""What kernels take of a GPU, and how much of it that leaves in use: the limits of a launch."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import Any

from hybridc.compiler.cuda.gpu import MOST_REGISTERS, MOST_THREADS, WARP, Gpu
from hybridc.compiler.errors import PassError

# Units in which a multiprocessor hands out its registers (to a warp) and shared memory (CUDA
# C++ Programming Guide 13.0, "Hardware Multithreading", and its occupancy calculator).
_REGISTER_UNIT = 256
_SHARED_UNIT = 128
_RESERVED_SHARED = 1024  # bytes that the system takes of each block's, from sm_80 on
_RESERVES = 80
_MOST_Z = 64
_MOST_GRID = (2**31 - 1, 65_535, 65_535)

Sizes = tuple[int, int, int]


@dataclass(frozen=True)
class Launch:
    """One kernel as it is launched: blocks, threads of one, and bytes of shared memory of one."""

    kernel: str
    grid: Sizes
    threads: Sizes
    shared: int

    @property
    def block_size(self) -> int:
        """Threads of one block."""
        return prod(self.threads)

    def describe(self) -> dict[str, Any]:
        """The launch as JSON data."""
        return asdict(self)

    @classmethod
    def read(cls, told: Mapping[str, Any]) -> "Launch":
        """What `describe` told, perhaps by way of JSON."""
        grid, threads = (_sizes(told[key]) for key in ("grid", "threads"))
        return cls(str(told["kernel"]), grid, threads, int(told["shared"]))

    def faults(self, gpu: Gpu) -> tuple[str, ...]:
        """What of the GPU's limits the launch breaks, a clause each; nothing where it is legal."""
        checks = (
            (self.block_size, MOST_THREADS, "threads in a block"),
            (self.threads[2], _MOST_Z, "threads along z"),
            (self.shared, gpu.shared_per_block, "bytes of shared memory in a block"),
            *(
                (have, most, f"blocks along {axis}")
                for have, most, axis in zip(self.grid, _MOST_GRID, "xyz", strict=True)
            ),
        )
        return tuple(
            f"{have} {what}, {most} are allowed" for have, most, what in checks if have > most
        )


def _sizes(told: Any) -> Sizes:
    x, y, z = map(int, told)
    return x, y, z


@dataclass(frozen=True)
class Usage:
    """What ptxas gave a kernel: registers of a thread, bytes spilled, static shared bytes."""

    registers: int
    spilled: int
    shared: int


def occupancy(threads: int, registers: int, shared: int, gpu: Gpu) -> float:
    """The share of a multiprocessor's threads that are in use, 0 where not one block fits."""
    warps = -(-threads // WARP)
    by_threads = gpu.threads_per_sm // (warps * WARP)
    of_a_warp = -(-max(1, registers) * WARP // _REGISTER_UNIT) * _REGISTER_UNIT
    by_registers = gpu.registers_per_sm // of_a_warp // warps
    taken = shared + (_RESERVED_SHARED if gpu.capability >= _RESERVES else 0)
    by_shared = gpu.shared_per_sm // max(1, -(-taken // _SHARED_UNIT) * _SHARED_UNIT)
    blocks = min(by_threads, by_registers, by_shared, gpu.blocks_per_sm)
    if registers > MOST_REGISTERS or shared > gpu.shared_per_block:
        return 0.0
    return blocks * warps * WARP / gpu.threads_per_sm


def read_log(log: str) -> dict[str, Usage]:
    """Each kernel's usage from what ptxas says with `-v`."""
    found: dict[str, Usage] = {}
    parts = re.split(r"Compiling entry function '([^']+)'", log)
    for name, said in zip(parts[1::2], parts[2::2], strict=True):
        found[name] = Usage(
            registers=_number(r"Used (\d+) registers", said),
            spilled=_number(r"(\d+) bytes spill stores", said),
            shared=_number(r"(\d+) bytes smem", said),
        )
    return found


def check(usages: Mapping[str, Usage], gpu: Gpu) -> None:
    """Raise PassError where ptxas gave a kernel more than one block may have."""
    for name, used in usages.items():
        if used.registers > MOST_REGISTERS or used.shared > gpu.shared_per_block:
            raise PassError(
                f"kernel {name} takes {used.registers} registers and {used.shared} bytes of shared"
                f" memory, more than {gpu.name} has for a block"
            )


def _number(pattern: str, text: str) -> int:
    match = re.search(pattern, text)
    return int(match.group(1)) if match else 0


def table(
    launches: Iterable[Launch], usages: Mapping[str, Usage], gpu: Gpu
) -> list[dict[str, Any]]:
    """The kernels with all that is known of their resources, as JSON data."""
    told: list[dict[str, Any]] = []
    for launch in launches:
        used = usages.get(launch.kernel, Usage(0, 0, 0))
        shared = max(launch.shared, used.shared)
        told.append(
            {
                "kernel": launch.kernel,
                "grid": list(launch.grid),
                "threads": list(launch.threads),
                "shared": shared,
                "registers": used.registers,
                "spilled": used.spilled,
                "occupancy": occupancy(launch.block_size, used.registers, shared, gpu),
            }
        )
    return told
