"""Kernels and models on this host's GPU: `python benchmarks/gpu.py` writes RESULTS-gpu.md.

Kernels are timed by the device's own events, with torch's (cuBLAS, ATen) in the same run where
torch sees the GPU.  Without a GPU one line says so, and the page stays as it is.
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler import pipeline, target
from hybridc.compiler.build import compile_kernel
from hybridc.compiler.cuda import driver, toolchain
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.interfaces import Context, NotApplicable, PrimFunc
from hybridc.compiler.tables import table
from hybridc.compiler.target import Target
from hybridc.compiler.tensors import to_tensor

PAGE = Path(__file__).parent / "RESULTS-gpu.md"
_REPEATS = 20
_MOVED = 2**28  # bytes read, and as many written, by what is bound by memory
op: Any = relax.op


@dataclass(frozen=True)
class Case:
    """A kernel: its operands, what computes it here and in torch, its FLOP and bytes."""

    name: str
    operands: tuple[tuple[tuple[int, ...], str], ...]
    build: Callable[..., Any]
    peer: Callable[..., Any]
    flops: float = 0.0
    bytes: float = 0.0


def cases() -> Iterator[Case]:
    """What is measured."""
    for rows, columns, depth in (
        (4096, 4096, 4096),
        (128, 768, 768),
        (128, 3072, 768),
        (128, 768, 3072),
        (4096, 3072, 768),
    ):
        for dtype in ("float16", "bfloat16", "float32"):
            yield Case(
                f"matmul {rows} x {columns} x {depth}, {dtype}",
                (((rows, depth), dtype), ((depth, columns), dtype)),
                op.matmul,
                lambda a, b: a @ b,
                flops=2.0 * rows * columns * depth,
            )
    width = 1024
    shape = (_MOVED // 4 // width, width)
    for name, build, peer in (
        ("softmax", lambda x: op.nn.softmax(x, -1), lambda x: x.softmax(-1)),
        ("gelu", op.nn.gelu, _gelu),
        ("sum of rows", lambda x: op.sum(x, [-1]), lambda x: x.sum(-1)),
    ):
        moved = _MOVED * (1 if name == "sum of rows" else 2)
        yield Case(name, ((shape, "float32"),), build, peer, bytes=float(moved))


def main() -> int:
    """Measure, and write the page."""
    try:
        device = driver.first()
        here = target.parse("cuda")
        tools = toolchain.find().describe()
    except HybridcError as error:
        print(f"nothing is measured: {error}", file=sys.stderr)
        return 2
    rows = [measured(case, here) for case in cases()]
    headers = ("kernel", "rule", "µs", "TFLOP/s or TB/s", "of the peak", "torch, µs", "torch / us")
    head = [
        "# Results on a GPU",
        "",
        f"{device.gpu.name} ({device.gpu.arch}), driver for CUDA {driver.version()}, {tools};"
        " default schedules, nothing tuned; medians by the device's events.",
        "",
        "```",
        table(headers, rows),
        "```",
        "",
    ]
    PAGE.write_text("\n".join(head))
    print(PAGE)
    return 0


def measured(case: Case, here: Target) -> tuple[str, ...]:
    """A row of the table."""
    (func,) = kernels(case, here)
    rule, scheduled = chosen(func, here)
    seconds = timed(scheduled, here)
    rate = (case.flops or case.bytes) / seconds
    peak = _peak(case, here)
    theirs = _peer(case)
    told = ("-", "-") if theirs is None else (f"{theirs * 1e6:.1f}", f"{theirs / seconds:.2f}")
    return (
        case.name,
        rule,
        f"{seconds * 1e6:.1f}",
        f"{rate / 1e12:.2f}",
        f"{rate / peak:.2f}",
        *told,
    )


def kernels(case: Case, here: Target) -> list[PrimFunc]:
    """The case's loop nests as they reach the rules."""
    builder = relax.BlockBuilder()
    given = [
        relax.Var(f"x{place}", relax.TensorType(shape, dtype))
        for place, (shape, dtype) in enumerate(case.operands)
    ]
    with builder.function("main", given):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(case.build(*given)))
        builder.emit_func_output(result)
    module = pipeline.run(pipeline.parse("legalize,fuse"), builder.finalize(), Context(here))
    return [func for func in module.functions.values() if isinstance(func, tvm.tirx.PrimFunc)]


def chosen(func: PrimFunc, here: Target) -> tuple[str, PrimFunc]:
    """The first rule that takes a kernel, and what its default point makes of it."""
    for rule in pipeline.rules(device="cuda"):
        match: Any = rule.match(func, here)
        if not isinstance(match, NotApplicable):
            made = rule.schedule(match, rule.default(match, here))
            return type(rule).__name__, made.mod["main"]
    raise AssertionError("the fallback takes every kernel")


def timed(func: PrimFunc, here: Target) -> float:
    """Seconds of one call, by the device's events."""
    device = tvm.cuda()
    draw = np.random.default_rng(0)
    arrays = [
        np.asarray(draw.standard_normal([int(e) for e in param.shape]), str(param.dtype))
        for param in func.params
    ]
    tensors = [to_tensor(array).copyto(device) for array in arrays]
    library = compile_kernel(func, here).jit()
    evaluator = library.time_evaluator("main", device, number=10, repeat=_REPEATS)
    return float(np.median(evaluator(*tensors).results))


def _peak(case: Case, here: Target) -> float:
    if case.bytes:
        return here.device.bandwidth
    return here.device.fp32 if case.operands[0][1] == "float32" else here.device.half


def _torch() -> Any:
    import torch

    return torch


def _gelu(x: Any) -> Any:
    return _torch().nn.functional.gelu(x)


def _peer(case: Case) -> float | None:
    """Seconds of torch's, by events around calls in a row; None where torch sees no GPU."""
    try:
        torch = _torch()
    except ImportError:
        return None
    if not torch.cuda.is_available():
        return None
    given = [
        torch.randn(shape, device="cuda").to(getattr(torch, dtype))
        for shape, dtype in case.operands
    ]
    for _ in range(3):
        case.peer(*given)
    found: list[float] = []
    for _ in range(_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(10):
            case.peer(*given)
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / 1e4)
    return float(np.median(found))


if __name__ == "__main__":
    sys.exit(main())
