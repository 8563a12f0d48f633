"""What this machine can do at most: multiply-adds in registers and bytes from memory.

Both are measured by small kernels on all threads, once for each machine, and kept as JSON in the
cache directory.  Rooflines and `hybridc doctor --probe` use them.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hybridc.compiler import host, load, settings
from hybridc.compiler.files import replacing
from hybridc.compiler.target import Target

# Independent multiply-add chains of a thread.  Two units of latency 4 need 8; with the two
# operands 12 chains still fit the 16 registers of AVX2.
_CHAINS = 12
_STEPS = 100_000
_REPEATS = 7
# Each of the triad's three arrays is as large as the L3 cache, within these limits: together they
# never fit it, and never take more memory than a small machine has.
_LEAST_ARRAY = 32 * 2**20
_MOST_ARRAY = 256 * 2**20
_FLOAT = 4  # bytes

# Keeps `chains` vectors in registers and multiply-adds to each, again and again.
_MULTIPLY_ADD = """
@T.prim_func(s_tir=True)
def main(x: T.Buffer((threads, lanes), "float32"), y: T.Buffer((threads, width), "float32")):
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    for t in T.parallel(threads):
        with T.sblock("thread"):
            T.reads(x[t, 0:lanes], y[t, 0:width])
            T.writes(y[t, 0:width])
            total = T.alloc_buffer((width,), "float32")
            for i in T.unroll(chains):
                for v in T.vectorized(lanes):
                    total[i * lanes + v] = y[t, i * lanes + v]
            for step in T.serial(steps):
                for i in T.unroll(chains):
                    for v in T.vectorized(lanes):
                        total[i * lanes + v] = total[i * lanes + v] * x[t, v] + x[t, v]
            for i in T.unroll(chains):
                for v in T.vectorized(lanes):
                    y[t, i * lanes + v] = total[i * lanes + v]
"""

# STREAM's triad (J. McCalpin, 1995): a = b + s c, counted as three arrays of traffic.
_TRIAD = """
@T.prim_func(s_tir=True)
def main(
    a: T.Buffer((threads, rows, lanes), "float32"),
    b: T.Buffer((threads, rows, lanes), "float32"),
    c: T.Buffer((threads, rows, lanes), "float32"),
):
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    for t in T.parallel(threads):
        for i in T.serial(rows):
            for v in T.vectorized(lanes):
                with T.sblock("triad"):
                    T.reads(b[t, i, v], c[t, i, v])
                    T.writes(a[t, i, v])
                    a[t, i, v] = b[t, i, v] + T.float32(3) * c[t, i, v]
"""


@dataclass(frozen=True)
class Peaks:
    """Fp32 FLOP/s (a multiply-add counts as two) and bytes/s of memory traffic, all threads."""

    flops: float
    bandwidth: float

    def attainable(self, flops: float, traffic: float) -> float:
        """FLOP/s that the roofline allows a kernel of so many FLOPs and so many bytes.

        S. Williams, A. Waterman, D. Patterson: Roofline, CACM 52(4), 2009.
        """
        if not traffic:
            return self.flops
        return min(self.flops, flops / traffic * self.bandwidth)


def peaks(target: Target, *, fresh: bool = False) -> Peaks:
    """The peaks of this machine with the target's threads: from the cache, or measured now.

    Peaks that were measured while something else kept the machine busy are used, but not kept.
    """
    path = settings.cache_directory() / "peaks.json"
    known = _read(path)
    key = f"{host.cpu_model()}/{target.cpu}/{target.vector_bits} bits/{target.threads} threads"
    if key in known and not fresh:
        return Peaks(**known[key])
    quiet = load.busy_cores() <= load.QUIET
    found = measure(target)
    if quiet:
        kept = {**known, key: asdict(found)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            stream.write(json.dumps(kept, indent=2).encode())
    return found


def measure(target: Target) -> Peaks:
    """Run both kernels; takes about a second.  Sets the size of TVM's thread pool."""
    settings.set_runtime_threads(target.threads)
    return Peaks(_flops(target), _bandwidth(target))


def _flops(target: Target) -> float:
    import tvm

    lanes, threads = target.lanes(), target.threads
    operand = tvm.runtime.tensor(np.full((threads, lanes), 0.5, "float32"))
    result = tvm.runtime.tensor(np.zeros((threads, lanes * _CHAINS), "float32"))
    width = lanes * _CHAINS
    sizes = {"threads": threads, "lanes": lanes, "width": width, "chains": _CHAINS}
    kernel = _script(_MULTIPLY_ADD, **sizes, steps=_STEPS)
    return 2 * threads * width * _STEPS / _fastest(kernel, target, operand, result)


def _bandwidth(target: Target) -> float:
    import tvm

    size = min(max(target.l3, _LEAST_ARRAY), _MOST_ARRAY) // _FLOAT
    width = target.lanes()
    shape = (target.threads, size // target.threads // width, width)
    arrays = [tvm.runtime.tensor(np.ones(shape, "float32")) for _ in range(3)]
    kernel = _script(_TRIAD, threads=shape[0], rows=shape[1], lanes=width)
    return 3 * _FLOAT * math.prod(shape) / _fastest(kernel, target, *arrays)


def _fastest(module: Any, target: Target, *arguments: Any) -> float:
    """The shortest run: a peak is what the machine can do when nothing disturbs it."""
    import tvm

    library = tvm.compile(module, target=target.tvm).jit()
    timer = library.time_evaluator("main", tvm.cpu(), number=3, repeat=_REPEATS)
    return float(timer(*arguments).min)


def _script(text: str, **sizes: int) -> Any:
    import tvm
    from tvm.script import tirx

    return tvm.IRModule({"main": tvm.script.from_source(text, {"T": tirx, **sizes})})


def _read(path: Path) -> dict[str, Mapping[str, float]]:
    """The measured peaks by machine; a missing or damaged file counts as none measured."""
    try:
        known = json.loads(path.read_text())
        return {key: asdict(Peaks(**entry)) for key, entry in known.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
