"""How fast one core of a machine works and is fed: facts for the analytic models of schedules.

A machine that nobody probed gets what is known of its family of CPUs, or facts of no machine in
particular; `hybridc doctor --probe` measures those of this one and keeps them in the cache
directory.  Whatever was used is in the target's description, so that a compilation can be repeated.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from hybridc.compiler import settings
from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.hardware import host


@dataclass(frozen=True)
class Machine:
    """What one core does in a cycle, while every thread of the target is at work.

    `fma_per_cycle` are vector multiply-adds of the target's widest registers: 2 on most CPUs, 1 of
    512 bits on Zen 4.  `hertz` are cycles a second while it does so.  The bytes are those that
    streaming loads get from each level.  `parallel_cycles` pass from the start of a parallel region
    to its end when the tasks do nothing: waking the other threads and waiting for them.  `bf16` are
    products of bfloat16 by the CPU's own instruction in the time of one in fp32; None where nobody
    measured them, or there is no instruction.  `streams` are the places from which a thread reads
    at once where it gets most from memory.

    The defaults are those of a current server CPU with wide vectors.  What matters is the ratio of
    arithmetic to memory, and that errs to the side of memory that keeps up.
    """

    fma_per_cycle: float = 2.0
    hertz: float = 3.0e9
    l1_bytes_per_cycle: float = 64.0
    l2_bytes_per_cycle: float = 32.0
    l3_bytes_per_cycle: float = 16.0
    dram_bytes_per_cycle: float = 4.0
    parallel_cycles: float = 5_000.0
    measured: bool = False
    bf16: float | None = None
    streams: int = 2

    def text(self) -> str:
        """`3.66 GHz, 1 vector multiply-adds a cycle, …`: what the doctor tells."""
        levels = ("l1", "l2", "l3", "dram")
        fed = "/".join(f"{getattr(self, f'{level}_bytes_per_cycle'):g}" for level in levels)
        region = self.parallel_cycles / self.hertz * 1e6
        return (
            f"{self.hertz / 1e9:.2f} GHz, {self.fma_per_cycle:g} vector multiply-adds and"
            f" {fed} bytes from L1/L2/L3/memory a cycle, a parallel region in {region:.1f} µs"
        )

    def to_json(self) -> dict[str, Any]:
        """The facts as JSON data."""
        return asdict(self)


_STREAMS = (1, 2, 4, 8)
_NARROW = Machine(fma_per_cycle=1.0)
# Intel's servers since Skylake: a mesh joins the slices of their last cache, from which a core gets
# about half of what the ring of others brings it (measured on Emerald Rapids: 8.8 bytes a cycle).
# Their prefetchers go ahead so far in each stream: products of 1 to 4 rows took 0.84 to 0.94 of the
# time with four streams of weights in place of two; with as many, Zen 4 got less from memory.
_MESH = Machine(fma_per_cycle=2.0, l3_bytes_per_cycle=9.0, streams=4)
# CPUs with two units of 512 bits, by the first letters of LLVM's names for them.
_WIDE = {
    "skylake-avx512": _MESH,
    "cascadelake": _MESH,
    "cooperlake": _MESH,
    "icelake-server": _MESH,
    "sapphirerapids": _MESH,
    "emeraldrapids": _MESH,
    "graniterapids": _MESH,
    "diamondrapids": _MESH,
    "znver5": Machine(fma_per_cycle=2.0),
}


def unprobed(cpu: str, vector_bits: int) -> Machine:
    """A machine that nobody probed, by LLVM's name for its CPU.

    Many CPUs need both of their units for one vector of 512 bits; `_WIDE` have two such.
    """
    if vector_bits < 512:
        return Machine()
    return next((facts for name, facts in _WIDE.items() if cpu.startswith(name)), _NARROW)


def from_json(data: object) -> Machine:
    """Read what `to_json` wrote.  Raises InputError for anything else."""
    speeds = [field.name for field in fields(Machine) if field.name != "measured"]
    if isinstance(data, Mapping) and data.get("bf16", 0) is None:
        data = {name: value for name, value in data.items() if name != "bf16"}
    if not isinstance(data, Mapping) or not set(data) <= {*speeds, "measured"}:
        raise InputError(f"a machine is described by {', '.join(speeds)}, not by {data!r:.80}")
    for name in speeds:
        value = data.get(name, 1.0)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e15:
            raise InputError(f"a machine's {name} is a positive number, got {value!r:.40}")
    if data.get("streams", 1) not in _STREAMS:
        raise InputError(f"a machine's streams is 1, 2, 4 or 8, got {data['streams']!r:.40}")
    if not isinstance(data.get("measured", False), bool):
        raise InputError(f"a machine's measured is true or false, got {data['measured']!r:.40}")
    whole: dict[str, Any] = {**data, "streams": int(data.get("streams", Machine.streams))}
    return Machine(**whole)


def known(cpu: str, threads: int, vector_bits: int) -> Machine:
    """What was measured of this machine with so many threads and such vectors; else the defaults.

    Facts of another number of threads do not hold: threads share caches and memory.
    """
    return _read(_path()).get(_key(threads, vector_bits)) or unprobed(cpu, vector_bits)


def keep(machine: Machine, threads: int, vector_bits: int) -> None:
    """Keep what was measured of this machine; compilations use it from now on."""
    path = _path()
    kept = {**_read(path), _key(threads, vector_bits): machine}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        data = {key: entry.to_json() for key, entry in kept.items()}
        stream.write(f"{json.dumps(data, indent=2)}\n".encode())


def _path() -> Path:
    return settings.cache_directory() / "machine.json"


@cache
def _key(threads: int, vector_bits: int) -> str:
    caches = "/".join(str(size // 2**10) for size in host.cache_sizes())
    return f"{host.cpu_model()}, {caches} KiB, {vector_bits} bits, {threads} threads"


def _read(path: Path) -> dict[str, Machine]:
    """The machines by key; a missing or damaged file counts as none measured."""
    try:
        known = json.loads(path.read_text())
        return {str(key): from_json(entry) for key, entry in known.items()}
    except (OSError, ValueError, AttributeError, RecursionError, InputError):
        return {}
