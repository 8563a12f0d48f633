"""Products and convolutions at their default points, against the peak measured on this machine."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import command_line
import ml_dtypes
import numpy as np
import tvm
from tvm import relax

from hybridc.compiler import pipeline, settings, target
from hybridc.compiler.building.build import compile_kernel
from hybridc.compiler.hardware import peaks
from hybridc.compiler.interfaces import Context, NotApplicable, PrimFunc
from hybridc.compiler.kernels import bfloat16, bfloat16_lowering
from hybridc.compiler.kernels.products import contractions, packing
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.compiler.target import Target

THREADS = 2
_VISITS, _REPEATS = 40, 10  # apart in time: what disturbs the machine lasts for a second or two
_GOAL = 0.9  # of the measured peak
# A loop nest, and what it takes behind its activations: any numbers where none are given.
Made = tuple[PrimFunc, list[Any]]
Kernel = tuple[str, int, Callable[[Target], Made]]


# The types of weights by those of activations.
_WEIGHTS = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}


def dense(rows: int, depth: int, columns: int, dtype: str = "float32") -> Kernel:
    """A matrix product with packed weights."""

    def make(chosen: Target) -> Made:
        weight = np.zeros((depth, columns), _WEIGHTS[dtype])
        group = packing.group_for(weight.dtype.name, chosen)
        packed = packing.pack_matrix(weight, chosen.lanes(), group)
        return contractions.dense((rows, depth), packed, columns, dtype), []

    return f"dense {rows} x {depth} x {columns}", 2 * rows * depth * columns, make


def convolution(  # noqa: PLR0913 - a row of the table
    size: int, inputs: int, outputs: int, window: int, *, stride: int = 1, dtype: str = "float32"
) -> Kernel:
    """A convolution of a square image, padded to keep its size."""
    pad = window // 2
    conv = Conv2d((stride, stride), (pad, pad, pad, pad), (1, 1), 1, inputs)
    out, _ = conv.output_size((size, size), (window, window))

    def make(chosen: Target) -> Made:
        weight = np.zeros((outputs, window, window, inputs), _WEIGHTS[dtype])
        group = packing.group_for(weight.dtype.name, chosen)
        packed, _ = packing.pack_filter(weight, 1, chosen.lanes(), group)
        return contractions.conv2d((1, size, size, inputs), packed, outputs, conv, dtype), []

    name = f"conv {window}x{window}/{stride}, {inputs} to {outputs} channels at {size}"
    return name, 2 * out * out * outputs * inputs * window * window, make


def integer_dense(rows: int, depth: int, columns: int) -> Kernel:
    """A matrix product of bytes, as `pack-weights` packs it."""

    def make(chosen: Target) -> Made:
        return _packed(chosen, (rows, depth), (depth, columns), relax.op.matmul)

    return f"dense {rows} x {depth} x {columns}", 2 * rows * depth * columns, make


def integer_convolution(
    size: int, inputs: int, outputs: int, window: int, stride: int = 1
) -> Kernel:
    """A convolution of bytes, likewise."""
    layouts = {"data_layout": "NHWC", "kernel_layout": "OHWI"}

    def convolve(x: Any, weight: Any, out_dtype: str) -> Any:
        return relax.op.nn.conv2d(
            x, weight, strides=stride, padding=window // 2, out_dtype=out_dtype, **layouts
        )

    def make(chosen: Target) -> Made:
        shape = (1, size, size, inputs)
        return _packed(chosen, shape, (outputs, window, window, inputs), convolve)

    out = -(-size // stride)
    name = f"conv {window}x{window}/{stride}, {inputs} to {outputs} channels at {size}"
    return name, 2 * out * out * outputs * inputs * window * window, make


def _packed(
    chosen: Target, shape: Sequence[int], weights: Sequence[int], operator: Callable[..., Any]
) -> Made:
    """The kernel of a product with weights like those of a model: their values decide."""
    bell = np.clip(np.round(np.random.default_rng(0).normal(0, 38, weights)), -127, 127)
    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType(shape, "uint8"))
    with builder.function("main", [x]):
        product = operator(x, relax.const(bell.astype(np.int8)), out_dtype="int32")
        builder.emit_func_output(builder.emit(product))
    passes = pipeline.parse("pack-weights,legalize")
    module = pipeline.run(passes, builder.finalize(), Context(chosen))
    call = module["main"].body.blocks[0].bindings[0].value
    return module[call.args[0]], [weight.value for weight in call.args[1].fields[1:]]


KERNELS = (
    dense(128, 768, 768),
    dense(128, 768, 3072),
    dense(128, 3072, 768),
    dense(197, 768, 768),
    dense(512, 512, 512),
    dense(1000, 1000, 1000),
    convolution(56, 64, 64, 3),
    convolution(28, 128, 128, 3),
    convolution(14, 256, 256, 3),
    convolution(7, 512, 512, 3),
    convolution(56, 128, 128, 3, stride=2),
    convolution(112, 32, 64, 3),
    convolution(35, 48, 100, 3),
    convolution(224, 3, 64, 7, stride=2),
)

# Operands of bfloat16, sums in fp32, which are stored.
NARROW_KERNELS = (
    dense(128, 768, 768, "bfloat16"),
    dense(128, 768, 3072, "bfloat16"),
    dense(128, 3072, 768, "bfloat16"),
    dense(197, 768, 768, "bfloat16"),
    dense(196, 1024, 256, "bfloat16"),
    dense(49, 512, 2048, "bfloat16"),
    dense(1000, 1000, 1000, "bfloat16"),
    convolution(56, 64, 64, 3, dtype="bfloat16"),
    convolution(28, 128, 128, 3, dtype="bfloat16"),
    convolution(14, 256, 256, 3, dtype="bfloat16"),
    convolution(7, 512, 512, 3, dtype="bfloat16"),
    convolution(56, 128, 128, 3, stride=2, dtype="bfloat16"),
    convolution(35, 48, 100, 3, dtype="bfloat16"),
    convolution(224, 3, 64, 7, stride=2, dtype="bfloat16"),
)

# Activations of uint8, weights of int8, sums in int32; without the epilogue that requantises.
INTEGER_KERNELS = (
    integer_dense(128, 768, 768),
    integer_dense(128, 768, 3072),
    integer_dense(128, 3072, 768),
    integer_dense(3136, 64, 256),
    integer_dense(784, 512, 128),
    integer_dense(1000, 1000, 1000),
    integer_convolution(56, 64, 64, 3),
    integer_convolution(14, 256, 256, 3),
    integer_convolution(7, 512, 512, 3),
    integer_convolution(56, 128, 128, 3, stride=2),
    integer_convolution(35, 48, 100, 3),
    integer_convolution(224, 3, 64, 7, stride=2),
)


def run() -> str:
    """Time every kernel at its default point; return the tables."""
    settings.set_runtime_threads(THREADS)
    chosen = target.parse("cpu", THREADS)
    found = peaks.peaks(chosen)
    tables = [_table("fp32", KERNELS, found.flops, chosen)]
    for precision, kernels in (("bf16", NARROW_KERNELS), ("int8", INTEGER_KERNELS)):
        if chosen.faster(precision) > 1:
            tables.append(_table(precision, kernels, found.rate(precision), chosen))
        else:
            tables.append(f"No {precision}: {_why_none(precision, chosen)}.")
    return "\n\n".join(tables)


def _why_none(precision: str, chosen: Target) -> str:
    """Why there is no table of a precision on this machine."""
    rated = chosen.rate(precision)
    slow = f"multiplies it {rated:g} times as fast as fp32" if rated != 1 else "has no instruction"
    return f"{chosen.cpu} {slow}, so that its products are computed in fp32"


def _table(precision: str, kernels: Sequence[Kernel], peak: float, chosen: Target) -> str:
    lines = [
        f"Default points, {THREADS} threads, best of {_VISITS * _REPEATS} runs; {precision} peak"
        f" {peak / 1e9:.0f} GOP/s; the goal is {_GOAL:.0%} of it.",
        "",
        "| kernel | point | GOP/s | share of peak |",
        "|---|---|---|---|",
    ]
    built = [build(*make(chosen), chosen) for _, _, make in kernels]
    visits = [[one.seconds() for one in built] for _ in range(_VISITS)]
    for (name, flops, _), (point, _), *seconds in zip(kernels, built, *visits, strict=True):
        rate = flops / min(seconds)
        knobs = " ".join(f"{knob}={value}" for knob, value in point.items())
        missed = " **missed**" if rate / peak < _GOAL else ""
        lines.append(f"| {name} | {knobs} | {rate / 1e9:.0f} | {rate / peak:.0%}{missed} |")
    return "\n".join(lines)


class Built(NamedTuple):
    """A kernel's point, and what times a few of its calls: seconds of the fastest."""

    point: dict[str, int]
    seconds: Callable[[], float]


def build(func: PrimFunc, weights: Sequence[Any], chosen: Target) -> Built:
    """Compile a kernel at the default point of the rule that takes it."""
    rule, match = next(
        (rule, found)
        for rule in Context(chosen, pipeline.rules()).rules
        if not isinstance(found := rule.match(func, chosen), NotApplicable)
    )
    point = rule.default(match, chosen)
    scheduled = bfloat16_lowering.lower(rule.schedule(match, point).mod, chosen)
    module = compile_kernel(scheduled["main"], chosen).jit()
    tensors = [_random(param) for param in func.params]
    tensors[1 : 1 + len(weights)] = weights
    timer = module.time_evaluator("main", tvm.cpu(), number=3, repeat=_REPEATS)
    return Built(dict(point), lambda: float(min(timer(*tensors).results)))


def _random(param: Any) -> Any:
    shape = [int(extent) for extent in param.shape]
    draw = np.random.default_rng(0).random(shape, "float32")
    narrow = str(param.dtype) == bfloat16.BFLOAT16
    return tvm.runtime.tensor(
        (100 * draw).astype(ml_dtypes.bfloat16 if narrow else str(param.dtype))
    )


def main() -> None:
    """Print the table."""
    command_line.none(__doc__)
    print(run())


if __name__ == "__main__":
    command_line.run(main)
