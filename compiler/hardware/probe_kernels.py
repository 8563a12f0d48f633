"""Small kernels that find out what a machine can do at most; each returns what it measured.

They run on all threads of the target at once, since threads share caches, memory and power, and
the shortest of some runs counts: a limit is what the machine does when nothing disturbs it.
"""

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.target import Target

# Independent chains of a thread.  Two units of latency 4 need 8; with the two operands 12 chains
# still fit the 16 registers of AVX2.
CHAINS = 12
STEPS = 100_000
_REPEATS = 25
# Each of the triad's three arrays is as large as the L3 cache, within these limits: together they
# never fit it, and never take more memory than a small machine has.
_LEAST_ARRAY = 32 * 2**20
_MOST_ARRAY = 256 * 2**20
_FLOAT = 4  # bytes
_STREAMED = 64 * 2**20  # bytes that a thread reads in one run: tens of milliseconds from memory
_REGIONS = 500  # parallel regions in one run
# A multiplication of integers takes 3 cycles on every x86 CPU since 2008, an exclusive or one.
_CHAIN_CYCLES = 4

# Keeps `chains` vectors in registers and multiply-adds to each, again and again.
_MULTIPLY_ADD = """
@T.prim_func(s_tir=True)
def main(x: T.Buffer((threads, lanes), "int32"), y: T.Buffer((threads, width), dtype)):
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    for t in T.parallel(threads, annotations=imported):
        with T.sblock("thread"):
            T.reads(x[t, 0:lanes], y[t, 0:width])
            T.writes(y[t, 0:width])
            total = T.alloc_buffer((width,), dtype)
            for i in T.unroll(chains):
                total[T.ramp(i * lanes, 1, lanes)] = y[t, T.ramp(i * lanes, 1, lanes)]
            for step in T.serial(steps):
                for i in T.unroll(chains):
                    total[T.ramp(i * lanes, 1, lanes)] = multiply_add(
                        total[T.ramp(i * lanes, 1, lanes)], x[t, T.ramp(0, 1, lanes)]
                    )
            for i in T.unroll(chains):
                y[t, T.ramp(i * lanes, 1, lanes)] = total[T.ramp(i * lanes, 1, lanes)]
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

# Each thread reads its own rows again and again.
_STREAM = """
@T.prim_func(s_tir=True)
def main(
    x: T.Buffer((threads, rows, width), "float32"), y: T.Buffer((threads, width), "float32")
):
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    for t in T.parallel(threads):
        with T.sblock("thread"):
            T.reads(x[t, 0:rows, 0:width], y[t, 0:width])
            T.writes(y[t, 0:width])
            total = T.alloc_buffer((width,), "float32")
            for i in T.unroll(chains):
                total[T.ramp(i * lanes, 1, lanes)] = y[t, T.ramp(i * lanes, 1, lanes)]
            for step in T.serial(steps):
                for row in T.serial(rows):
                    for i in T.unroll(chains):
                        total[T.ramp(i * lanes, 1, lanes)] = (
                            total[T.ramp(i * lanes, 1, lanes)]
                            + x[t, row, T.ramp(i * lanes, 1, lanes)]
                        )
            for i in T.unroll(chains):
                y[t, T.ramp(i * lanes, 1, lanes)] = total[T.ramp(i * lanes, 1, lanes)]
"""

# Each step waits for the one before it: a multiplication and an exclusive or.
_CHAIN = """
@T.prim_func(s_tir=True)
def main(y: T.Buffer((threads, 16), "int32")):
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    for t in T.parallel(threads):
        with T.sblock("thread"):
            T.reads(y[t, 0:2])
            T.writes(y[t, 0])
            total = T.alloc_buffer((1,), "int32")
            total[0] = y[t, 0]
            for step in T.serial(steps):
                total[0] = T.bitwise_xor(total[0], step) * y[t, 1]
            y[t, 0] = total[0]
"""

_REGION = """
@T.prim_func(s_tir=True)
def main(y: T.Buffer((threads, 16), "int32")):
    T.func_attr({"global_symbol": "main", "tirx.noalias": True})
    for step in T.serial(regions):
        for t in T.parallel(threads):
            with T.sblock("thread"):
                T.reads(y[t, 0])
                T.writes(y[t, 0])
                y[t, 0] = y[t, 0] + step
"""

# TVM turns bf16 into float before code generation, so the instruction comes in as LLVM's text.
_DOT_BF16 = """
declare <{n} x float> @llvm.x86.avx512bf16.dpbf16ps.{bits}(
    <{n} x float>, <{twice} x bfloat>, <{twice} x bfloat>)
define <{n} x float> @probe_dot_bf16(<{n} x float> %c, <{n} x i32> %a) alwaysinline nounwind {{
  %x = bitcast <{n} x i32> %a to <{twice} x bfloat>
  %r = call <{n} x float> @llvm.x86.avx512bf16.dpbf16ps.{bits}(
    <{n} x float> %c, <{twice} x bfloat> %x, <{twice} x bfloat> %x)
  ret <{n} x float> %r
}}
"""
_DOT_INT8 = "llvm.x86.avx512.vpdpbusd"
_DOT_INT16 = MappingProxyType({512: "llvm.x86.avx512.pmaddw.d.512", 256: "llvm.x86.avx2.pmadd.wd"})
_DOT_BYTES, _SHUFFLE = "llvm.x86.avx2.pmadd.ub.sw", "llvm.x86.avx2.pshuf.b"
# Those of windows of bytes (`kernels.byte_windows`): each step has a chain of nine cycles, whose
# seven instructions four ports start, and needs registers for data, sums and ones.
_CHAINS_IN_WINDOWS, _WINDOWS_BITS = 8, 256

_NEEDED = MappingProxyType({"float32": (), "bfloat16": ("avx512bf16",), "int8": ("avx2",)})


def flops(target: Target, dtype: str = "float32") -> float | None:
    """Operations a second in registers, a multiply-add counted as two.

    `dtype` is float32, bfloat16 or int8; None if the CPU has no dot products of its kind.
    Bytes are multiplied as such (VNNI, or in 256 bits as `kernels.byte_windows` does), or as pairs
    of 16 bits with an addition for their sum.
    """
    needed = _NEEDED[dtype]
    if needed and not target.features & set(needed):
        return None
    import tvm

    chains = _CHAINS_IN_WINDOWS if dtype == "int8" and _in_windows(target) else CHAINS
    lanes, threads, width = target.lanes(), target.threads, target.lanes() * chains
    accumulator = "int32" if dtype == "int8" else "float32"
    operand = tvm.runtime.tensor(np.full((threads, lanes), 0x01010101, "int32"))
    result = tvm.runtime.tensor(np.zeros((threads, width), accumulator))
    kernel = _script(
        _MULTIPLY_ADD,
        **{"threads": threads, "lanes": lanes, "width": width, "chains": chains, "steps": STEPS},
        dtype=accumulator,
        imported=_imported(dtype, target),
        multiply_add=lambda total, x: _multiply_add(dtype, target, total, x),
    )
    done = 2 * threads * width * _together(dtype, target) * STEPS
    return done / _fastest(kernel, target, operand, result)


def _together(dtype: str, target: Target) -> int:
    """Products that one element of an accumulator takes in at once."""
    if dtype == "int8":
        return 8 if _in_windows(target) else 4 if target.multiplies_bytes else 2
    return 2 if dtype == "bfloat16" else 1


def _in_windows(target: Target) -> bool:
    """Whether bytes are multiplied by the instruction that saturates."""
    return not target.multiplies_bytes and target.vector_bits == _WINDOWS_BITS


def _imported(dtype: str, target: Target) -> Mapping[str, str]:
    if dtype != "bfloat16":
        return {}
    lanes = target.lanes()
    text = _DOT_BF16.format(n=lanes, twice=2 * lanes, bits=target.vector_bits)
    return {"pragma_import_llvm": text}


def _multiply_add(dtype: str, target: Target, total: Any, x: Any) -> Any:
    """One vector of accumulators, and the operand's bits as integers of 32 bits."""
    from tvm.script import tirx as T  # noqa: N812 - its usual name

    lanes = target.lanes()
    if dtype == "bfloat16":
        return T.call_extern(f"float32x{lanes}", "probe_dot_bf16", total, x)
    if dtype == "int8" and _in_windows(target):
        return total + _window(lanes, total, x)
    if dtype == "int8" and not target.multiplies_bytes:
        # Of the sum itself: products that are the same in every step would be made only once.
        pairs = [T.reinterpret(each, dtype=f"int16x{2 * lanes}") for each in (total, x)]
        name = T.llvm_lookup_intrinsic_id(_DOT_INT16[target.vector_bits])
        return total + T.call_llvm_pure_intrin(name, *pairs, dtype=f"int32x{lanes}")
    if dtype == "int8":
        name = T.llvm_lookup_intrinsic_id(f"{_DOT_INT8}.{target.vector_bits}")
        unsigned = T.reinterpret(x, dtype=f"uint8x{4 * lanes}")
        signed = T.reinterpret(x, dtype=f"int8x{4 * lanes}")
        return T.call_llvm_pure_intrin(name, total, unsigned, signed, dtype=f"int32x{lanes}")
    value = T.reinterpret(x, dtype=f"float32x{lanes}")
    return total * value + value


def _window(lanes: int, total: Any, x: Any) -> Any:
    """Four sums of four products for each lane: two vectors of bytes, shuffled and multiplied."""
    from tvm.script import tirx as T  # noqa: N812 - its usual name

    def call(name: str, dtype: str, *operands: Any) -> Any:
        number = T.llvm_lookup_intrinsic_id(name)
        return T.call_llvm_pure_intrin(number, *operands, dtype=dtype)

    as_bytes, words = f"int8x{4 * lanes}", f"int16x{2 * lanes}"
    weights, sums = (T.reinterpret(each, dtype=as_bytes) for each in (x, total))
    # Of the sum itself, once as the data and once as the pattern, or both would be one.
    chosen = [call(_SHUFFLE, as_bytes, *pair) for pair in ((sums, weights), (weights, sums))]
    first, second = (call(_DOT_BYTES, words, each, weights) for each in chosen)
    both = first + second
    ones = T.reinterpret(x, dtype=words)
    return call(_DOT_INT16[_WINDOWS_BITS], f"int32x{lanes}", both, ones)


def triad(target: Target) -> float:
    """Bytes a second of traffic with memory, two arrays read and one written."""
    import tvm

    size = min(max(target.l3, _LEAST_ARRAY), _MOST_ARRAY) // _FLOAT
    width = target.lanes()
    shape = (target.threads, size // target.threads // width, width)
    arrays = [tvm.runtime.tensor(np.ones(shape, "float32")) for _ in range(3)]
    kernel = _script(_TRIAD, threads=shape[0], rows=shape[1], lanes=width)
    return 3 * _FLOAT * math.prod(shape) / _fastest(kernel, target, *arrays)


def stream(target: Target, size: int) -> float:
    """Bytes a second that one thread loads from `size` bytes of its own, all threads at work."""
    import tvm

    lanes, width = target.lanes(), target.lanes() * CHAINS
    shape = (target.threads, max(1, size // width // _FLOAT), width)
    thread_bytes = shape[1] * width * _FLOAT
    steps = max(1, _STREAMED // thread_bytes)
    data = tvm.runtime.tensor(np.ones(shape, "float32"))
    result = tvm.runtime.tensor(np.zeros((shape[0], width), "float32"))
    sizes = {"threads": shape[0], "rows": shape[1], "width": width, "lanes": lanes}
    kernel = _script(_STREAM, **sizes, chains=CHAINS, steps=steps)
    return thread_bytes * steps / _fastest(kernel, target, data, result)


def hertz(target: Target) -> float:
    """Cycles a second of a core, by a chain of operations whose latency is known."""
    import tvm

    data = tvm.runtime.tensor(np.full((target.threads, 16), 1664525, "int32"))
    kernel = _script(_CHAIN, threads=target.threads, steps=10 * STEPS)
    return _CHAIN_CYCLES * 10 * STEPS / _fastest(kernel, target, data)


def parallel_seconds(target: Target) -> float:
    """Seconds that a parallel region takes whose tasks do next to nothing."""
    import tvm

    data = tvm.runtime.tensor(np.zeros((target.threads, 16), "int32"))
    kernel = _script(_REGION, threads=target.threads, regions=_REGIONS)
    return _fastest(kernel, target, data) / _REGIONS


def _fastest(module: Any, target: Target, *arguments: Any) -> float:
    import tvm

    library = tvm.compile(module, target=target.tvm).jit()
    timer = library.time_evaluator("main", tvm.cpu(), number=3, repeat=_REPEATS)
    return float(timer(*arguments).min)


def _script(text: str, **names: Any) -> Any:
    import tvm
    from tvm.script import tirx

    return tvm.IRModule({"main": tvm.script.from_source(text, {"T": tirx, **names})})
