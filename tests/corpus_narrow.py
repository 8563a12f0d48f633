"""Kernels of quantised tensors and of bfloat16."""

from collections.abc import Callable
from typing import Any

import numpy as np
from corpus_products import attention, convolution, depthwise
from corpus_rows import max_pool
from kernel_builders import (
    IN_KERNEL,
    LOWERED,
    MIXED,
    QUANTIZED,
    Builder,
    bf16,
    bytes_of,
    constant,
    floats,
    op,
    operator,
)
from tvm import relax


def _narrow_pair(x: Any) -> Any:
    """Two convolutions with a residual, and a pooling between them."""
    first = op.nn.relu(op.nn.conv2d(x, constant(16, 3, 3, 3), padding=1))
    pooled = op.nn.max_pool2d(first, (2, 2), (1, 1), (0, 0))
    return op.add(op.nn.conv2d(pooled, constant(16, 16, 1, 1)), pooled)


def _narrow_chain(x: Any) -> Any:
    hidden = op.nn.gelu(op.add(op.matmul(x, constant(40, 33)), constant(33)))
    return op.matmul(hidden, constant(33, 24))


def _grouped(outputs: int) -> Callable[..., Any]:
    """Two groups; from 6 channels, three inputs each."""
    return lambda x: op.nn.conv2d(x, constant(outputs, 3, 3, 2), padding=1, groups=2)


def _gelu_sum(x: Any, y: Any) -> Any:
    return op.add(op.nn.gelu(op.add(x, y)), x)


def _quantized(
    *shape: int, residual: bool = False, bell: float = 0, **options: Any
) -> Callable[..., Any]:
    """A product of quantised activations and weights, and a quantised residual; all of uint8.

    Weights are drawn from all of int8, or from a bell of this deviation.
    """
    draw = np.random.default_rng(0)
    outputs = shape[0] if len(shape) == 4 else shape[1]
    scale, zero = (relax.const(np.asarray(v)) for v in (np.float32(0.1), np.uint8(7)))
    steps = relax.const(draw.uniform(0.01, 0.02, outputs).astype("float32"))
    drawn = np.clip(draw.normal(0, bell, shape), -127, 127) if bell else 0
    weights = drawn if bell else draw.integers(-128, 128, shape)
    weight = op.dequantize(
        relax.const(np.asarray(weights).astype("int8")),
        steps,
        relax.const(np.zeros(outputs, "int8")),
        axis=0 if len(shape) == 4 else 1,
    )
    point = relax.const(np.uint8(99))

    def product(x: Any, y: Any = None) -> Any:
        data = op.dequantize(x, scale, zero)
        if len(shape) == 4:
            result = op.nn.conv2d(data, weight, **options)
        else:
            result = op.matmul(data, weight)
        result = op.quantize(result, relax.const(np.float32(0.9)), point, out_dtype="uint8")
        if not residual:
            return result
        result = op.dequantize(result, relax.const(np.float32(0.9)), point)
        return op.quantize(op.add(result, op.dequantize(y, scale, zero)), scale, zero, 0, "uint8")

    return product


NARROW: list[tuple[str, Builder]] = [
    # Quantised.
    ("int8 dense", operator(_quantized(64, 48), *bytes_of([14, 64]), passes=QUANTIZED)),
    (
        "int8 dense in windows",
        operator(_quantized(70, 48, bell=38), *bytes_of([1, 23, 70]), passes=QUANTIZED),
    ),
    (
        "int8 conv in windows",
        operator(
            _quantized(16, 20, 3, 3, bell=38, padding=1, strides=(2, 2), residual=True),
            *bytes_of([1, 20, 13, 11], [1, 16, 7, 6]),
            passes=QUANTIZED,
        ),
    ),
    ("int8 dense, odd", operator(_quantized(13, 21), *bytes_of([2, 5, 13]), passes=QUANTIZED)),
    ("int8 dense of a row", operator(_quantized(70, 100), *bytes_of([1, 70]), passes=QUANTIZED)),
    (
        "int8 dense and residual",
        operator(_quantized(32, 40, residual=True), *bytes_of([9, 32], [9, 40]), passes=QUANTIZED),
    ),
    (
        "int8 convolution",
        operator(_quantized(32, 16, 3, 3, padding=1), *bytes_of([1, 16, 9, 11]), passes=QUANTIZED),
    ),
    (
        "int8 convolution, three channels",
        operator(
            _quantized(21, 3, 3, 3, padding=(1, 0), strides=(2, 1)),
            *bytes_of([2, 3, 9, 7]),
            passes=QUANTIZED,
        ),
    ),
    (
        "int8 grouped convolution",
        operator(
            _quantized(32, 3, 3, 3, padding=1, groups=2), *bytes_of([1, 6, 7, 9]), passes=QUANTIZED
        ),
    ),
    (
        "int8 depthwise convolution",
        operator(
            _quantized(11, 1, 3, 3, padding=1, strides=(1, 2), groups=11),
            *bytes_of([1, 11, 9, 7]),
            passes=QUANTIZED,
        ),
    ),
    (
        "int8 depthwise convolution, whole vectors",
        operator(
            _quantized(32, 1, 3, 3, padding=1, groups=32),
            *bytes_of([1, 32, 9, 9]),
            passes=QUANTIZED,
        ),
    ),
    # bfloat16 in memory, products of pairs.
    (
        "bf16 dense, odd depth",
        operator(lambda x: op.matmul(x, constant(13, 21)), *floats([2, 5, 13]), passes=MIXED),
    ),
    ("bf16 dense and epilogue", operator(_narrow_chain, *floats([7, 40]), passes=MIXED)),
    ("bf16 convolution", operator(convolution, *floats([1, 5, 9, 7]), passes=MIXED)),
    ("bf16 convolution, even", operator(_narrow_pair, *floats([2, 3, 11, 9]), passes=MIXED)),
    ("bf16 grouped convolution", operator(_grouped(32), *floats([1, 6, 7, 9]), passes=MIXED)),
    ("bf16 groups of odd inputs", operator(_grouped(48), *floats([1, 6, 7, 9]), passes=MIXED)),
    ("bf16 depthwise convolution", operator(depthwise, *floats([1, 11, 9, 7]), passes=MIXED)),
    (
        "bf16 product of activations",
        operator(op.matmul, *floats([2, 9, 14], [2, 14, 21]), passes=MIXED),
    ),
    (
        "bf16 product of activations, odd",
        operator(op.matmul, *floats([3, 1, 9, 13], [2, 13, 32]), passes=MIXED),
    ),
    (
        "bf16 attention",
        operator(
            attention,
            *floats([1, 7, 2, 5], [1, 9, 2, 5], [1, 9, 2, 5], [1, 1, 1, 9]),
            passes=f"fuse-attention,mixed-precision,{LOWERED}",
        ),
    ),
    (
        "bf16 dense in pairs, odd depth",
        operator(lambda x: op.matmul(x, constant(13, 21)), *floats([2, 5, 13]), passes=IN_KERNEL),
    ),
    ("bf16 dense in pairs", operator(_narrow_chain, *floats([7, 40]), passes=IN_KERNEL)),
    (
        "bf16 convolution in pairs",
        operator(_narrow_pair, *floats([2, 3, 11, 9]), passes=IN_KERNEL),
    ),
    (
        "bf16 groups in pairs",
        operator(_grouped(48), *floats([1, 6, 7, 9]), passes=IN_KERNEL),
    ),
    ("bf16 elementwise", operator(_gelu_sum, *bf16([3, 197], [197]))),
    ("bf16 copies", operator(lambda x: op.permute_dims(x, [0, 2, 1]), *bf16([3, 19, 40]))),
    ("bf16 max pool", operator(max_pool("NHWC", 3, 2, 1), *bf16([1, 13, 14, 24]))),
    ("bf16 concat", operator(lambda x, y: op.concat([x, y], 1), *bf16([4, 5], [4, 3]))),
]
