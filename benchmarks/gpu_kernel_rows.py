"""The rows of `gpu.py` for single kernels, beside torch's.

Each is compiled ahead, and then loaded, compared and timed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from gpu_rows import Cells, Machine, Row, error, replayed, replayed_by_torch
from tvm import relax

from hybridc.compiler import pipeline
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.cuda import codegen
from hybridc.compiler.errors import first_line
from hybridc.compiler.interfaces import Context, IRModule, NotApplicable, PrimFunc
from hybridc.compiler.kernels.attention.attention_form import holds_attention
from hybridc.compiler.runtime.tensors import to_numpy, to_tensor
from hybridc.compiler.target import Target

op: Any = relax.op
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
_SECONDS = 45
_LIBRARY, _CODE, _RULE = "kernel.so", "kernel.cubin", "rule"


@dataclass(frozen=True)
class Case:
    """A kernel: its operands, what computes it here and in torch, its FLOP and bytes.

    It is the only one that `passes` make, or the only one of attention.
    """

    operands: tuple[tuple[tuple[int, ...], str], ...]
    build: Callable[..., Any]
    peer: Callable[..., Any]
    flops: float = 0.0
    bytes: float = 0.0
    passes: str = "legalize,fuse"


def kernel(case: Case, here: Target) -> PrimFunc:
    """The case's loop nest as it reaches the rules."""
    builder = relax.BlockBuilder()
    given = [
        relax.Var(f"x{place}", relax.TensorType(shape, dtype))
        for place, (shape, dtype) in enumerate(case.operands)
    ]
    with builder.function("main", given):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(case.build(*given)))
        builder.emit_func_output(result)
    module = pipeline.run(pipeline.parse(case.passes), builder.finalize(), Context(here))
    found = [func for func in module.functions.values() if isinstance(func, tvm.tirx.PrimFunc)]
    (made,) = [func for func in found if holds_attention(func)] or found
    return made


def chosen(func: PrimFunc, here: Target) -> tuple[str, IRModule]:
    """The first rule that takes a kernel, and what its default point makes of it."""
    for rule in pipeline.rules(device=here.kind):
        match: Any = rule.match(func, here)
        if not isinstance(match, NotApplicable):
            return type(rule).__name__, rule.schedule(match, rule.default(match, here)).mod
    raise AssertionError("the fallback takes every kernel")


def compiled(case: Callable[[Machine], Case], machine: Machine, folder: Path) -> None:
    """Compile the kernel by its default schedule into files of the folder."""
    rule, scheduled = chosen(kernel(case(machine), machine.here), machine.here)
    exported(scheduled, machine.here, folder)
    (folder / _RULE).write_text(rule)


def exported(scheduled: IRModule, here: Target, folder: Path) -> None:
    """A scheduled kernel's files, lowered as models are."""
    # A CPU computes bfloat16 in float32, if it is told how.
    steps = "fast-math" if here.gpu else "lower-bfloat16,fast-math"
    lowered = pipeline.run(pipeline.parse(steps), scheduled, Context(here))
    made = compile_kernel(lowered["main"], here)
    made.export_library(str(folder / _LIBRARY))
    (folder / _CODE).write_bytes(getattr(made, "device", b""))


def loaded(machine: Machine, folder: Path) -> Any:
    """The kernel of a folder."""
    path = str(folder / _LIBRARY)
    if machine.dry:
        return tvm.runtime.load_module(path)
    _ = machine.device  # has TVM's runtime for CUDA loaded
    return codegen.load(path, (folder / _CODE).read_bytes())


def ours(func: PrimFunc, arrays: Sequence[Any], machine: Machine, folder: Path) -> tuple[Any, Any]:
    """Seconds of one call, and the result."""
    result = func.params[-1]
    shape, dtype = [int(extent) for extent in result.shape], np.dtype(str(result.dtype))
    # Nothing that is left unwritten may look right.
    given = [*arrays, np.full(shape, np.nan, dtype)]
    tensors = [to_tensor(array).copyto(machine.device) for array in given]
    library = loaded(machine, folder)
    library["main"](*tensors)
    made = to_numpy(tensors[-1].copyto(tvm.cpu()), dtype)
    if not machine.dry:
        return replayed(lambda: library["main"](*tensors), machine), made
    number, repeat = machine.counts
    evaluator = library.time_evaluator("main", machine.device, number=number, repeat=repeat)
    return float(np.median(evaluator(*tensors).results)), made


def arrays_of(func: PrimFunc) -> list[Any]:
    """Random operands; large ones repeat themselves, but no row or tile is like its neighbour."""
    drawn = np.random.default_rng(0).standard_normal(_DRAWN).astype("float32")
    return [
        np.resize(drawn, [int(extent) for extent in param.shape]).astype(str(param.dtype))
        for param in func.params[:-1]
    ]


def widened(arrays: Sequence[Any], where: str) -> list[Any]:
    """Torch's tensors of the arrays, in float32."""
    import torch

    return [torch.from_numpy(np.asarray(array, "float32")).to(where) for array in arrays]


def measured(made_of: Callable[[Machine], Case], machine: Machine, folder: Path) -> Cells:
    """What is known of a kernel: its own figures also where torch cannot be measured."""
    case = made_of(machine)
    func = kernel(case, machine.here)
    dtype, arrays = str(func.params[0].dtype), arrays_of(func)
    seconds, made = ours(func, arrays, machine, folder)
    cells = {"rule": (folder / _RULE).read_text(), **figures(case, dtype, seconds, machine)}
    try:
        found = error(made, case.peer(*widened(arrays, machine.torch_device)))
        cells["off by"] = off_by(found, dtype)
        return cells | beside_torch(case.peer, arrays, dtype, seconds, machine)
    except Exception as failure:  # whatever torch lacks is no fault of ours
        return cells | {"torch, µs": f"failed: {first_line(failure)[:60]}"}


def off_by(found: float, dtype: str) -> str:
    """An error as the page tells it."""
    return f"{'WRONG: ' if found > _WRONG[dtype] else ''}{found:.0e}"


def beside_torch(
    peer: Callable[..., Any], arrays: Sequence[Any], dtype: str, seconds: float, machine: Machine
) -> Cells:
    """Torch's time for the same, and what it is of ours."""
    import torch

    machine.wants_torch()
    tensors = widened(arrays, machine.torch_device)
    tensors = [tensor.to(getattr(torch, dtype)) for tensor in tensors]
    theirs = replayed_by_torch(peer, tensors, machine)
    return {"torch, µs": f"{theirs * 1e6:.1f}", "torch / us": f"{theirs / seconds:.2f}"}


def figures(case: Case, dtype: str, seconds: float, machine: Machine) -> Cells:
    """A kernel's time and rate, and what that is of the GPU's."""
    gpu = machine.here.gpu
    cells = {"µs": f"{seconds * 1e6:.1f}"}
    rate = (case.flops or case.bytes) / seconds
    cells["TFLOP/s or TB/s"] = f"{rate / 1e12:.2f}"
    if gpu is not None:
        peak = gpu.fp32 if dtype == "float32" else gpu.half
        cells["of the peak"] = f"{rate / (peak if case.flops else gpu.bandwidth):.2f}"
    return cells


def _row(table: str, name: str, case: Callable[[Machine], Case], rank: int) -> Row:
    """A row of one kernel."""
    make, measure = partial(compiled, case), partial(measured, case)
    return Row(table, name, _SECONDS, measure, rank, make)


def product(shape: Sequence[int], dtype: str, machine: Machine) -> Case:
    """A matrix product: rows, columns, depth."""
    rows, columns, depth = map(machine.size, shape)
    operands = (((rows, depth), dtype), ((depth, columns), dtype))
    flops = 2.0 * rows * columns * depth
    return Case(operands, op.matmul, lambda a, b: a @ b, flops=flops)


def products() -> Iterator[Row]:
    """Matrix products by our kernels, beside torch's (cuBLAS)."""
    for shape in SHAPES:
        for dtype in TYPES:
            name = f"{' x '.join(map(str, shape))}, {dtype}"
            rank = 2 if dtype == TYPES[0] else 6
            yield _row("matrix products", name, partial(product, shape, dtype), rank)


def _attention(shape: Sequence[int], machine: Machine) -> Case:
    batch, heads, rows, width = (1, 2, 32, shape[-1]) if machine.small else shape

    def ours(q: Any, k: Any, v: Any) -> Any:
        scores = op.matmul(q, op.permute_dims(k, [0, 1, 3, 2]))
        scale = relax.const(np.float32(width**-0.5))
        made = op.matmul(op.nn.softmax(op.multiply(scores, scale), -1), v)
        return op.astype(made, "float16")

    def theirs(q: Any, k: Any, v: Any) -> Any:
        import torch

        made = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return made.transpose(1, 2)  # as the kernel has it, and a view

    flops = 4.0 * batch * heads * rows * rows * width
    operand = (batch, heads, rows, width), "float32"
    return Case((operand,) * 3, ours, theirs, flops=flops, passes=_NARROWED)


# Attention as one operator, whose operands are then of 16 bits.
_NARROWED = "fuse-attention,mixed-precision{dtype=float16},legalize,fuse"


def attentions() -> Iterator[Row]:
    """Attention in one kernel, beside torch's (cuDNN or FlashAttention)."""
    for batch, rows in ((8, 512), (1, 4096)):
        shape = (batch, 12, rows, 64)
        name = f"{' x '.join(map(str, shape))}, float16"
        yield _row("attention", name, partial(_attention, shape), 3)


def bound_by_memory() -> Iterator[Row]:
    """Kernels that read and write 1 GB in all, beside torch's, and a plain copy."""

    def softmax(x: Any) -> Any:
        return x.softmax(-1)

    def functional(name: str) -> Callable[..., Any]:
        def call(x: Any, *rest: Any) -> Any:
            import torch

            sizes = [tuple(rest[0].shape)] if rest else []
            return getattr(torch.nn.functional, name)(x, *sizes, *rest)

        return call

    def normalized(x: Any, scale: Any, shift: Any) -> Any:
        return op.nn.layer_norm(x, scale, shift, [-1])

    wide = (1024,)
    for name, build, peer, passes, others in (
        ("copy", lambda x: op.multiply(x, relax.const(np.float32(1.5))), lambda x: x * 1.5, 2, ()),
        ("softmax", lambda x: op.nn.softmax(x, -1), softmax, 2, ()),
        ("layer norm", normalized, functional("layer_norm"), 2, (wide, wide)),
        ("gelu", op.nn.gelu, functional("gelu"), 2, ()),
        ("sum of rows", lambda x: op.sum(x, [-1]), lambda x: x.sum(-1), 1, ()),
    ):

        def case(
            machine: Machine,
            what: Any = (build, peer),
            passes: int = passes,
            others: Sequence[tuple[int, ...]] = others,
        ) -> Case:
            shape = (machine.size(2**17, 2**13), *wide)
            moved = float(passes * 4 * shape[0] * shape[1])
            operands = tuple((each, "float32") for each in (shape, *others))
            return Case(operands, *what, bytes=moved)

        yield _row("bound by memory", name, case, 3)
