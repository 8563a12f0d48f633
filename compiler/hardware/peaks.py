"""What this machine can do at most: multiply-adds in registers and bytes from memory.

They are measured by small kernels on all threads, once for each machine, and kept as JSON in the
cache directory.  Rooflines and `hybridc doctor --probe` use them.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from hybridc.compiler import settings
from hybridc.compiler.cuda.gpu import Gpu
from hybridc.compiler.filesystem.files import replacing
from hybridc.compiler.hardware import host, load, probe_kernels
from hybridc.compiler.target import Target

_TERA = 1e13  # operations a second from which on they are told in units of 10^12


@dataclass(frozen=True)
class Peaks:
    """Fp32 FLOP/s (a multiply-add counts as two) and bytes/s of memory traffic, all threads.

    The others are the operations a second of products that are added up in 32 bits; None if
    there are no instructions for them.
    """

    flops: float
    bandwidth: float
    bf16: float | None = None
    int8: float | None = None
    fp16: float | None = None
    tf32: float | None = None

    def text(self) -> str:
        """`236 GFLOP/s fp32, 470 GFLOP/s bf16, 31.0 GB/s from memory`."""
        rates = (
            ("FLOP/s fp32", self.flops),
            ("FLOP/s tf32", self.tf32),
            ("FLOP/s fp16", self.fp16),
            ("FLOP/s bf16", self.bf16),
            ("OP/s int8", self.int8),
        )
        parts = [f"{_scaled(rate)}{unit}" for unit, rate in rates if rate]
        return ", ".join([*parts, f"{self.bandwidth / 1e9:.1f} GB/s from memory"])

    def rate(self, precision: str) -> float:
        """Operations a second in a precision: what is slower than fp32 is multiplied in that."""
        others = {"bf16": self.bf16, "int8": self.int8, "fp16": self.fp16, "tf32": self.tf32}
        return max(others.get(precision) or 0.0, self.flops)


def _scaled(rate: float) -> str:
    return f"{rate / 1e12:.0f} T" if rate >= _TERA else f"{rate / 1e9:.0f} G"


def of_gpu(gpu: Gpu) -> Peaks:
    """The peaks of a GPU by its data sheet; products of bytes take half the time of 16 bits'."""
    half, bf16 = gpu.half, gpu.half if "mma.bf16" in gpu.features else None
    return Peaks(gpu.fp32, gpu.bandwidth, bf16, 2 * half, half, gpu.tf32 or None)


def peaks(target: Target, *, fresh: bool = False) -> Peaks:
    """The peaks of this machine with the target's threads: from the cache, or measured now.

    Peaks that were measured while something else kept the machine busy are used, but not kept.
    """
    path, key = _path(), _key(target)
    known = _read(path)
    if key in known and not fresh:
        return Peaks(**known[key])
    watch = load.Load()
    found = measure(target)
    if watch.others() <= load.QUIET:
        kept = {**known, key: asdict(found)}
        with suppress(OSError):  # where nobody may write, they are measured again the next time
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as stream:
                stream.write(json.dumps(kept, indent=2).encode())
    return found


def known(target: Target) -> Peaks | None:
    """The peaks of this machine with the target's threads if they were measured before."""
    found = _read(_path()).get(_key(target))
    return Peaks(**found) if found else None


def measure(target: Target) -> Peaks:
    """Run the kernels; takes about two seconds.  Sets the size of TVM's thread pool."""
    settings.set_runtime_threads(target.threads)
    bf16, int8 = (probe_kernels.flops(target, dtype) for dtype in ("bfloat16", "int8"))
    return Peaks(probe_kernels.flops(target) or 0.0, probe_kernels.triad(target), bf16, int8)


def _path() -> Path:
    return settings.cache_directory() / "peaks.json"


def _key(target: Target) -> str:
    return f"{host.cpu_model()}/{target.cpu}/{target.vector_bits} bits/{target.threads} threads"


def _read(path: Path) -> dict[str, Mapping[str, Any]]:
    """The measured peaks by machine; a missing or damaged file counts as none measured."""
    try:
        known = json.loads(path.read_text())
        names = {field.name for field in fields(Peaks)}
        return {key: asdict(Peaks(**e)) for key, e in known.items() if set(e) == names}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}
