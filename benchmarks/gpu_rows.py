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
from hybridc.compiler.interfaces import Context, NotApplicable, PrimFunc
from hybridc.compiler.target import Target
from hybridc.compiler.tensors import to_tensor

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


@dataclass(frozen=True)
class Machine:
    """Where rows are measured: the GPU, or for a dry run this CPU on a `fraction` of the sizes."""

    here: Target
    dry: bool = False

    @property
    def device(self) -> Any:
        """TVM's device."""
        return tvm.cpu() if self.dry else runtime.device(0)

    @property
    def torch_device(self) -> str:
        """Torch's name of it."""
        return "cpu" if self.dry else "cuda"

    def size(self, extent: int) -> int:
        """An extent, made small for a dry run."""
        return max(16, extent // 64) if self.dry else extent


@dataclass(frozen=True)
class Row:
    """One line of a table: what is measured, the table, and the seconds that it may take."""

    table: str
    name: str
    limit: float
    measure: Callable[[Machine], Cells]


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
    for rule in pipeline.rules(device=here.kind):
        match: Any = rule.match(func, here)
        if not isinstance(match, NotApplicable):
            made = rule.schedule(match, rule.default(match, here))
            return type(rule).__name__, made.mod["main"]
    raise AssertionError("the fallback takes every kernel")


def ours(case: Case, machine: Machine) -> tuple[str, float]:
    """The rule, and seconds of one call by the device's events."""
    (func,) = kernels(case, machine.here)
    rule, scheduled = chosen(func, machine.here)
    draw = np.random.default_rng(0)
    arrays = [
        np.asarray(draw.standard_normal([int(e) for e in param.shape]), str(param.dtype))
        for param in scheduled.params
    ]
    tensors = [to_tensor(array).copyto(machine.device) for array in arrays]
    library = compile_kernel(scheduled, machine.here).jit()
    evaluator = library.time_evaluator("main", machine.device, number=10, repeat=_REPEATS)
    return rule, float(np.median(evaluator(*tensors).results))


def by_torch(call: Callable[..., Any], given: Sequence[Any], machine: Machine) -> float:
    """Seconds of one of torch's calls, of some in a row between two events."""
    import torch

    for _ in range(3):
        call(*given)
    if machine.dry:
        from hybridc.compiler.measurement import measure

        return float(np.median(measure.latency(lambda: call(*given), seconds=0.05).seconds))
    found: list[float] = []
    for _ in range(_REPEATS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(10):
            call(*given)
        end.record()
        torch.cuda.synchronize()
        found.append(start.elapsed_time(end) / 1e4)
    return float(np.median(found))


def tensors_of(case: Case, machine: Machine) -> list[Any]:
    """Torch's tensors for a case."""
    import torch

    return [
        torch.randn(shape, device=machine.torch_device).to(getattr(torch, dtype))
        for shape, dtype in case.operands
    ]


def _product(shape: Sequence[int], dtype: str, machine: Machine) -> Case:
    rows, columns, depth = map(machine.size, shape)
    operands = (((rows, depth), dtype), ((depth, columns), dtype))
    flops = 2.0 * rows * columns * depth
    return Case(operands, op.matmul, lambda a, b: a @ b, flops=flops)


def _product_row(shape: Sequence[int], dtype: str, machine: Machine) -> Cells:
    return _measured(_product(shape, dtype, machine), machine)


def _measured(case: Case, machine: Machine) -> Cells:
    rule, seconds = ours(case, machine)
    theirs = by_torch(case.peer, tensors_of(case, machine), machine)
    gpu = machine.here.gpu
    cells = {"rule": rule, "µs": f"{seconds * 1e6:.1f}"}
    rate = (case.flops or case.bytes) / seconds
    cells["TFLOP/s or TB/s"] = f"{rate / 1e12:.2f}"
    if gpu is not None:
        half = gpu.fp32 if case.operands[0][1] == "float32" else gpu.half
        cells["of the peak"] = f"{rate / (half if case.flops else gpu.bandwidth):.2f}"
    return cells | {"torch, µs": f"{theirs * 1e6:.1f}", "torch / us": f"{theirs / seconds:.2f}"}


def products() -> Iterator[Row]:
    """Matrix products by our kernels, beside torch's (cuBLAS)."""
    for shape in SHAPES:
        for dtype in TYPES:
            name = f"{' x '.join(map(str, shape))}, {dtype}"
            yield Row(
                "matrix products",
                name,
                60,
                partial(_product_row, shape, dtype),
            )


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
            shape = (machine.size(2**17), 1024)
            moved = float(passes * 4 * shape[0] * shape[1])
            build, peer = what
            return _measured(Case(((shape, "float32"),), build, peer, bytes=moved), machine)

        yield Row("bound by memory", name, 60, row)


def models() -> Iterator[Row]:
    """Whole models in fp16: batch 1 first, then 32; each peer in a row of its own."""
    from gpu_models import MODELS

    for batch in (1, 32):
        for name in MODELS:
            if batch > 1 and "step" in name:
                continue
            for way in ("ours", "ours with libraries", "torch.compile"):
                yield Row(
                    "models, fp16",
                    f"{name}, batch {batch}: {way}",
                    150,
                    partial(_model, name, batch, way),
                )


def _model(name: str, batch: int, way: str, machine: Machine) -> Cells:
    import gpu_models
    import torch

    model, inputs = gpu_models.made(name, batch)
    if machine.dry:
        model, inputs = torch.nn.Linear(64, 64), (torch.randn(batch, 64),)
    with torch.no_grad():
        if way == "torch.compile":
            seconds = _compiled_by_torch(model, inputs, machine)
        else:
            seconds = _compiled_here(model, inputs, "libraries" in way, machine)
    return {"ms": f"{seconds * 1e3:.3f}"}


def _compiled_by_torch(model: Any, inputs: Any, machine: Machine) -> float:
    import torch

    half = torch.float32 if machine.dry else torch.float16
    model = model.to(machine.torch_device, half)
    given = [x.to(machine.torch_device, half if x.is_floating_point() else x.dtype) for x in inputs]
    mode = "default" if machine.dry else "max-autotune"
    return by_torch(torch.compile(model, mode=mode), given, machine)


def _compiled_here(model: Any, inputs: Any, libraries: bool, machine: Machine) -> float:
    import torch

    from hybridc.compiler import driver
    from hybridc.compiler.session import InferenceSession

    names = ("onednn",) if machine.dry else ("cublaslt", "cudnn", "sdpa", "triton")
    made = driver.compile(
        torch.export.export(model, tuple(inputs)),
        target="cpu" if machine.dry else "cuda",
        dtype="fp32" if machine.dry else "fp16",
        backends=("tvm", *names) if libraries else ("tvm",),
        verify="off",
    )
    session = InferenceSession(made)
    given = [x.to(machine.torch_device) for x in inputs]
    return by_torch(session, given, machine)
