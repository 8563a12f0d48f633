"""Kernels of many kinds and shapes for tuning, as the default pipeline hands them to the rules."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler import pipeline, pipelines, plugin
from hybridc.compiler.interfaces import (
    Context,
    IRModule,
    NotApplicable,
    PrimFunc,
    ScheduleRule,
)
from hybridc.compiler.target import Target

op: Any = relax.op
Build = Callable[..., Any]
_NAMES = [name for name, _ in pipelines.DEFAULT]
_BEFORE = ",".join(_NAMES[: _NAMES.index("schedule")])
# What changes a kernel after it was scheduled.
_BEHIND = "start-at-infinity,lower-bfloat16,fast-math,saturating-casts,propagate-nan,shield-floats"


@dataclass(frozen=True)
class Kernel:
    """A kernel: its name, the rule that is to take it, and the Relax expression behind it."""

    name: str
    rule: str
    build: Build
    shapes: tuple[tuple[int, ...], ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Matched:
    """A kernel that its rule took."""

    kernel: Kernel
    func: PrimFunc
    rule: ScheduleRule
    match: Any


def matched(kernel: Kernel, target: Target) -> Matched:
    """The function that the pipeline makes of a kernel; ValueError where another rule takes it."""
    builder = relax.BlockBuilder()
    inputs = [
        relax.Var(f"x{i}", relax.TensorType(shape, kernel.dtype))
        for i, shape in enumerate(kernel.shapes)
    ]
    with builder.function("main", inputs):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(kernel.build(*inputs)))
        builder.emit_func_output(result)
    module = pipeline.run(pipeline.parse(_BEFORE), builder.finalize(), Context(target))
    taken = [_taken(func, target) for func in _functions(module)]
    for func, rule, match in taken:
        if plugin.name_of(type(rule)) == kernel.rule:
            return Matched(kernel, func, rule, match)
    names = ", ".join(plugin.name_of(type(rule)) for _, rule, _ in taken)
    raise ValueError(f"{kernel.name}: wanted rule {kernel.rule}, found {names}")


def finished(module: IRModule, target: Target) -> IRModule:
    """Scheduled kernels as the rest of the pipeline leaves them."""
    return pipeline.run(pipeline.parse(_BEHIND), module, Context(target))


def _functions(module: IRModule) -> Iterator[PrimFunc]:
    return (func for _, func in module.functions_items() if isinstance(func, tirx.PrimFunc))


def _taken(func: PrimFunc, target: Target) -> tuple[PrimFunc, ScheduleRule, Any]:
    for rule in pipeline.rules():
        match = rule.match(func, target)
        if not isinstance(match, NotApplicable):
            return func, rule, match
    raise ValueError("no rule takes a kernel")


def _weights(*shape: int) -> Any:
    values = np.random.default_rng(0).standard_normal(shape).astype("float32")
    return relax.const(values)


def dense(rows: int, depth: int, columns: int) -> Kernel:
    """A matrix product with constant weights, a bias, a relu."""

    def build(x: Any) -> Any:
        return op.nn.relu(op.add(op.matmul(x, _weights(depth, columns)), _weights(columns)))

    rule = "skinny-dense" if rows <= 16 and depth * columns > 2**18 else "dense"
    return Kernel(f"dense {rows}x{depth}x{columns}", rule, build, ((rows, depth),))


def convolution(  # noqa: PLR0913, PLR0917 - a layer's numbers
    rule: str, size: int, inputs: int, outputs: int, window: int, stride: int = 1, batch: int = 1
) -> Kernel:
    """A convolution of square images, padded to keep their size, with a relu."""
    groups = inputs if rule == "depthwise-conv2d" else 1
    weights = (outputs, window, window, inputs // groups)

    def build(x: Any) -> Any:
        product = op.nn.conv2d(
            x,
            _weights(*weights),
            strides=stride,
            padding=window // 2,
            groups=groups,
            data_layout="NHWC",
            kernel_layout="OHWI",
        )
        return op.nn.relu(product)

    many = f" of {batch}" if batch > 1 else ""
    name = f"{rule} {window}x{window}/{stride} {inputs} to {outputs} at {size}{many}"
    return Kernel(name, rule, build, ((batch, size, size, inputs),))


def products(batch: int, rows: int, depth: int, columns: int) -> Kernel:
    """Matrix products of two activations."""
    shapes = ((batch, rows, depth), (batch, depth, columns))
    return Kernel(
        f"batch-matmul {batch}x{rows}x{depth}x{columns}", "batch-matmul", op.matmul, shapes
    )


def attention(heads: int, length: int, depth: int) -> Kernel:
    """Attention over heads `[batch, length, heads, depth]`, without a mask."""
    scale = relax.const(np.float32(depth**-0.5))

    def build(q: Any, k: Any, v: Any) -> Any:
        queries, values = (op.permute_dims(x, [0, 2, 1, 3]) for x in (q, v))
        scores = op.matmul(queries, op.permute_dims(k, [0, 2, 3, 1]))
        weights = op.nn.softmax(op.multiply(scores, scale), axis=-1)
        return op.permute_dims(op.matmul(weights, values), [0, 2, 1, 3])

    shapes = ((1, length, heads, depth),) * 3
    return Kernel(f"attention {heads} heads {length}x{depth}", "attention", build, shapes)


def softmax(rows: int, columns: int) -> Kernel:
    """Softmax of rows."""
    shapes = ((rows, columns),)
    return Kernel(f"softmax {rows}x{columns}", "softmax", lambda x: op.nn.softmax(x, -1), shapes)


def layer_norm(rows: int, columns: int) -> Kernel:
    """Layer norm of rows, with scale and shift."""

    def build(x: Any, scale: Any, shift: Any) -> Any:
        return op.nn.layer_norm(x, scale, shift, [-1])

    shapes = ((rows, columns), (columns,), (columns,))
    return Kernel(f"layer-norm {rows}x{columns}", "layer-norm", build, shapes)


def max_pool(size: int, channels: int, window: int, stride: int) -> Kernel:
    """Maximum over windows, channels last."""

    def build(x: Any) -> Any:
        pad, strides = window // 2, (stride, stride)
        return op.nn.max_pool2d(x, (window, window), strides, (pad, pad), layout="NHWC")

    shapes = ((1, size, size, channels),)
    return Kernel(
        f"pooling {window}x{window}/{stride} {channels} at {size}", "pooling", build, shapes
    )


def mean(rows: int, columns: int) -> Kernel:
    """Mean over the first axis, as behind a network's last convolution."""
    shapes = ((1, rows, columns),)
    return Kernel(f"reduction {rows}x{columns}", "reduction", lambda x: op.mean(x, [1]), shapes)


# Every stretch of the list holds each kind, so that a part of it is a balanced set as well.
KERNELS: Sequence[Kernel] = (
    dense(128, 768, 768),
    convolution("conv2d", 56, 64, 128, 3, 2),
    products(12, 128, 64, 128),
    softmax(1536, 128),
    layer_norm(128, 768),
    convolution("winograd-conv2d", 28, 128, 128, 3),
    dense(784, 128, 512),
    convolution("conv2d", 28, 128, 256, 3, 2),
    convolution("depthwise-conv2d", 28, 192, 192, 3),
    products(12, 128, 128, 64),
    dense(49, 2048, 512),
    softmax(2364, 197),
    layer_norm(3136, 96),
    max_pool(112, 64, 3, 2),
    mean(49, 512),
    dense(3136, 64, 256),
    convolution("conv2d", 35, 48, 100, 5),
    products(12, 197, 197, 64),
    convolution("depthwise-conv2d", 14, 384, 384, 7),
    dense(8, 768, 768),
    dense(196, 1024, 256),
    convolution("winograd-conv2d", 14, 256, 256, 3),
    products(8, 64, 64, 64),
    attention(12, 128, 64),
    convolution("conv2d", 112, 32, 64, 3, 2),
    dense(64, 512, 512),
    convolution("depthwise-conv2d", 56, 144, 144, 3, 2),
    dense(128, 3072, 768),
    convolution("conv2d", 14, 256, 512, 3, 2),
    products(16, 64, 256, 64),
    dense(12544, 16, 96),
    softmax(64, 1000),
    layer_norm(197, 768),
    max_pool(56, 192, 2, 2),
    mean(196, 1024),
    convolution("winograd-conv2d", 56, 64, 64, 3),
    convolution("depthwise-conv2d", 7, 960, 960, 3),
    dense(1, 2048, 1000),
    attention(12, 197, 64),
    dense(128, 768, 3072),
    convolution("conv2d", 224, 3, 64, 7, 2),
    products(4, 256, 64, 256),
    dense(197, 768, 768),
    convolution("depthwise-conv2d", 112, 32, 32, 3),
    dense(384, 1024, 1024),
    convolution("winograd-conv2d", 7, 512, 512, 3),
    convolution("conv2d", 7, 512, 512, 3, 2),
    attention(8, 64, 64),
    convolution("depthwise-conv2d", 56, 96, 96, 7),
    dense(784, 512, 128),
    products(6, 100, 32, 100),
    convolution("conv2d", 28, 64, 96, 5),
    softmax(1000, 50),
    layer_norm(49, 768),
    dense(196, 256, 1024),
    convolution("winograd-conv2d", 14, 128, 128, 3),
    convolution("depthwise-conv2d", 14, 576, 576, 3),
    dense(100, 300, 200),
    products(12, 197, 64, 197),
    convolution("conv2d", 14, 160, 320, 3, 2),
    max_pool(28, 256, 3, 2),
    mean(64, 1280),
    dense(4, 512, 2048),
    dense(3136, 144, 24),
    attention(6, 100, 32),
    convolution("conv2d", 224, 3, 32, 3, 2),
    convolution("depthwise-conv2d", 56, 48, 48, 3),
    dense(256, 256, 256),
    products(1, 128, 512, 128),
    convolution("winograd-conv2d", 35, 64, 64, 3),
    softmax(4608, 384),
    layer_norm(384, 1024),
    dense(49, 960, 160),
    convolution("conv2d", 56, 24, 48, 3, 2),
    products(2, 512, 64, 512),
    convolution("depthwise-conv2d", 28, 192, 192, 3, 2),
    dense(1, 768, 3072),
    dense(12544, 64, 64),
    attention(4, 384, 64),
    convolution("conv2d", 17, 96, 64, 7),
    dense(33, 77, 130),
    products(16, 50, 80, 50),
    max_pool(112, 32, 2, 2),
    mean(3136, 64),
    convolution("winograd-conv2d", 56, 32, 32, 3),
    dense(512, 64, 64),
    convolution("depthwise-conv2d", 28, 144, 144, 5),
    dense(784, 32, 192),
    convolution("conv2d", 56, 64, 64, 3, 2),
    dense(32, 4096, 256),
    products(12, 384, 64, 384),
    dense(16, 1024, 1024),
    convolution("depthwise-conv2d", 40, 64, 64, 3),
    convolution("winograd-conv2d", 28, 96, 96, 3),
    dense(49, 512, 2048),
    convolution("conv2d", 28, 32, 64, 5),
    attention(16, 256, 64),
    dense(3136, 256, 64),
    convolution("depthwise-conv2d", 7, 672, 672, 5),
)
