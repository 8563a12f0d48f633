"""The rows of `gpu.py`: each measures one thing, here and by a peer, and may fail alone."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler import pipeline
from hybridc.compiler.build import compile_kernel
from hybridc.compiler.cuda import runtime
from hybridc.compiler.errors import first_line
from hybridc.compiler.interfaces import Context, NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.compiler.tensors import to_numpy, to_tensor

_REPEATS = 20
op: Any = relax.op
Cells = dict[str, str]
SHAPES = (
    (4096, 4096, 4096),
    (128, 768, 768),
    (128, 3072, 768),
    (128, 768, 3072),
    (4096, 3072, 768),
)
TYPES = ("float16", "bfloat16", "float32")
# Errors, as shares of the largest element, from which on a kernel is wrong: roundings of operands
# and results, and sums of 4096 terms in another order, stay well below.
_WRONG = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 3e-2}
_DRAWN = 2**20 - 3  # numbers of which large operands are made


@dataclass(frozen=True)
class Machine:
    """Where rows are measured: the GPU, or for a dry run this CPU; sizes may be made `small`."""

    here: Target
    dry: bool = False
    small: bool = False

    @property
    def device(self) -> Any:
        """TVM's device."""
        return tvm.cpu() if self.dry else runtime.device(0)

    @property
    def torch_device(self) -> str:
        """Torch's name of it, or of the CPU where torch is built without CUDA."""
        import torch

        return "cuda" if not self.dry and torch.cuda.is_available() else "cpu"

    def wants_torch(self) -> None:
        """Raise RuntimeError where torch cannot be a peer here."""
        import torch

        if not self.dry and self.torch_device == "cpu":
            raise RuntimeError(f"torch {torch.__version__} has no GPU here")

    @property
    def counts(self) -> tuple[int, int]:
        """Calls in a row, and how often these are timed; a trial is no measurement."""
        return (1, 3) if self.small else (10, _REPEATS)

    def size(self, extent: int, part: int = 64) -> int:
        """An extent, or what a trial makes of it."""
        return max(16, extent // part) if self.small else extent


@dataclass(frozen=True)
class Row:
    """One line of a table: what is measured, the table, and the seconds that it may take.

    Those of the lowest `rank` are measured first.
    """

    table: str
    name: str
    limit: float
    measure: Callable[[Machine], Cells]
    rank: int = 0


@dataclass(frozen=True)
class Case:
    """A kernel: its operands, what computes it here and in torch, its FLOP and bytes."""

    operands: tuple[tuple[tuple[int, ...], str], ...]
    build: Callable[..., Any]
    peer: Callable[..., Any]
    flops: float = 0.0
    bytes: float = 0.0


def kernels(case: Case, here: Target) -> list[PrimFunc]:
    """The case's loop nests as they reach the rules."""
    builder = relax.BlockBuilder()
    parameters = [
        relax.Var(f"x{place}", relax.TensorType(shape, dtype))
        for place, (shape, dtype) in enumerate(case.operands)
    ]
    with builder.function("main", parameters):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(case.build(*parameters)))
        builder.emit_func_output(result)
    module = pipeline.run(pipeline.parse("legalize,fuse"), builder.finalize(), Context(here))
    return [func for func in module.functions.values() if isinstance(func, tvm.tirx.PrimFunc)]


def chosen(func: PrimFunc, here: Target) -> tuple[str, PrimFunc]:
    """The first rule that takes a kernel, and what its default point makes of it."""
    for rule in pipeline.rules(device=here.kind):
        match: Any = rule.match(func, here)
        if not isinstance(match, NotApplicable):
            scheduled = rule.schedule(match, rule.default(match, here))
            return type(rule).__name__, scheduled.mod["main"]
    raise AssertionError("the fallback takes every kernel")


def ours(case: Case, arrays: Sequence[Any], machine: Machine) -> tuple[str, float, Any]:
    """The rule, seconds of one call by the device's events, and the result."""
    (func,) = kernels(case, machine.here)
    rule, scheduled = chosen(func, machine.here)
    result = scheduled.params[-1]
    shape, dtype = [int(extent) for extent in result.shape], np.dtype(str(result.dtype))
    # Nothing that is left unwritten may look right.
    operands = [*arrays, np.full(shape, np.nan, dtype)]
    tensors = [to_tensor(array).copyto(machine.device) for array in operands]
    library = compile_kernel(scheduled, machine.here).jit()
    library["main"](*tensors)
    answer = to_numpy(tensors[-1].copyto(tvm.cpu()), dtype)
    number, repeat = machine.counts
    evaluator = library.time_evaluator("main", machine.device, number=number, repeat=repeat)
    return rule, float(np.median(evaluator(*tensors).results)), answer


def by_torch(call: Callable[..., Any], arguments: Sequence[Any], machine: Machine) -> float:
    """Seconds of one call, of some in a row between two of torch's events, or by the clock."""
    import torch

    for _ in range(3):
        call(*arguments)
    if machine.torch_device == "cpu":
        from hybridc.compiler.measurement import measure

        return float(np.median(measure.latency(lambda: call(*arguments), seconds=0.05).seconds))
    found: list[float] = []
    for _ in range(_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(10):
            call(*arguments)
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / 1e4)
    return float(np.median(found))


def arrays_of(case: Case) -> list[Any]:
    """Random operands; large ones repeat themselves, but no row or tile is like its neighbour."""
    drawn = np.random.default_rng(0).standard_normal(_DRAWN).astype("float32")
    return [np.resize(drawn, shape).astype(dtype) for shape, dtype in case.operands]


def widened(arrays: Sequence[Any], where: str) -> list[Any]:
    """Torch's tensors of the arrays, in float32."""
    import torch

    return [torch.from_numpy(np.asarray(array, "float32")).to(where) for array in arrays]


def error(result: Any, right: Any) -> float:
    """The largest difference from torch's tensor, as a share of its largest element."""
    wide = np.asarray(result if isinstance(result, np.ndarray) else result.float().cpu(), "float32")
    true = right.float().cpu().numpy()
    if not np.isfinite(wide).all() or wide.shape != true.shape:
        return float("inf")
    return float(np.abs(wide - true).max() / max(np.abs(true).max(), 1e-30))


def _product(shape: Sequence[int], dtype: str, machine: Machine) -> Case:
    rows, columns, depth = map(machine.size, shape)
    operands = (((rows, depth), dtype), ((depth, columns), dtype))
    flops = 2.0 * rows * columns * depth
    return Case(operands, op.matmul, lambda a, b: a @ b, flops=flops)


def _product_row(shape: Sequence[int], dtype: str, machine: Machine) -> Cells:
    return _measured(_product(shape, dtype, machine), machine)


def _measured(case: Case, machine: Machine) -> Cells:
    """What is known of a kernel: its own figures also where torch cannot be measured."""
    arrays = arrays_of(case)
    rule, seconds, result = ours(case, arrays, machine)
    cells = _figures(case, rule, seconds, machine)
    try:
        cells |= {"off by": _off_by(case, arrays, result, machine)}
        return cells | _beside_torch(case, arrays, seconds, machine)
    except Exception as failure:  # whatever torch lacks is no fault of ours
        return cells | {"torch, µs": f"failed: {first_line(failure)[:60]}"}


def _off_by(case: Case, arrays: Sequence[Any], result: Any, machine: Machine) -> str:
    found = error(result, case.peer(*widened(arrays, machine.torch_device)))
    return f"{'WRONG: ' if found > _WRONG[case.operands[0][1]] else ''}{found:.0e}"


def _beside_torch(case: Case, arrays: Sequence[Any], seconds: float, machine: Machine) -> Cells:
    import torch

    machine.wants_torch()
    dtype = case.operands[0][1]
    tensors = widened(arrays, machine.torch_device)
    tensors = [tensor.to(getattr(torch, dtype)) for tensor in tensors]
    theirs = by_torch(case.peer, tensors, machine)
    return {"torch, µs": f"{theirs * 1e6:.1f}", "torch / us": f"{theirs / seconds:.2f}"}


def _figures(case: Case, rule: str, seconds: float, machine: Machine) -> Cells:
    gpu = machine.here.gpu
    cells = {"rule": rule, "µs": f"{seconds * 1e6:.1f}"}
    rate = (case.flops or case.bytes) / seconds
    cells["TFLOP/s or TB/s"] = f"{rate / 1e12:.2f}"
    if gpu is not None:
        half = gpu.fp32 if case.operands[0][1] == "float32" else gpu.half
        cells["of the peak"] = f"{rate / (half if case.flops else gpu.bandwidth):.2f}"
    return cells


def products() -> Iterator[Row]:
    """Matrix products by our kernels, beside torch's (cuBLAS)."""
    for shape in SHAPES:
        for dtype in TYPES:
            name = f"{' x '.join(map(str, shape))}, {dtype}"
            rank = 0 if shape in SHAPES[:2] else 5
            yield Row("matrix products", name, 45, partial(_product_row, shape, dtype), rank)


def bound_by_memory() -> Iterator[Row]:
    """Kernels that read and write 1 GB in all, beside torch's, and a plain copy."""

    def softmax(x: Any) -> Any:
        return x.softmax(-1)

    def gelu(x: Any) -> Any:
        import torch

        return torch.nn.functional.gelu(x)

    for name, build, peer, passes in (
        ("copy", lambda x: op.multiply(x, relax.const(np.float32(1.5))), lambda x: x * 1.5, 2),
        ("softmax", lambda x: op.nn.softmax(x, -1), softmax, 2),
        ("gelu", op.nn.gelu, gelu, 2),
        ("sum of rows", lambda x: op.sum(x, [-1]), lambda x: x.sum(-1), 1),
    ):

        def row(machine: Machine, what: Any = (build, peer), passes: int = passes) -> Cells:
            shape = (machine.size(2**17, 2**13), 1024)
            moved = float(passes * 4 * shape[0] * shape[1])
            build, peer = what
            return _measured(Case(((shape, "float32"),), build, peer, bytes=moved), machine)

        yield Row("bound by memory", name, 45, row, 1)
