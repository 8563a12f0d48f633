"""Kernels of float16, and of weights in 8 and 4 bits."""

from typing import Any

import numpy as np
from corpus_products import attention, convolution, depthwise
from kernel_builders import LOWERED, Builder, constant, floats, op, operator

from hybridc.compiler.kernels.products import grouped_bytes

NARROW = "layout,fold-constants,mixed-precision{dtype=float16 in-kernel=true}"
HALF = f"{NARROW},pack-weights,{LOWERED}"
WEIGHTS = f"layout,fold-constants,quantize-weights{{}},pack-weights,{LOWERED}"
INT8 = WEIGHTS.replace("{}", "{group=24 in-kernel=true}")
INT4 = WEIGHTS.replace("{}", "{bits=4 in-kernel=true}")


def _dense(inputs: int, outputs: int) -> Any:
    """A product, a bias and an activation."""
    return lambda x: op.nn.gelu(op.add(op.matmul(x, constant(inputs, outputs)), constant(outputs)))


def _pointwise(x: Any) -> Any:
    return op.nn.relu(op.nn.conv2d(x, constant(24, 16, 1, 1)))


def _rounded(bits: int) -> Builder:
    """A product of six rows whose activations are rounded, in two groups."""
    scales = np.zeros((2, 2, 32), np.float32)
    words = np.zeros((2, 64 // grouped_bytes.share(bits), 32), np.int32)
    return lambda _: [grouped_bytes.dense((2, 3, 64), words, scales, 50, bits)]


LOWERED_KERNELS: list[tuple[str, Builder]] = [
    ("int8 weights, one row", operator(_dense(70, 100), *floats([1, 70]), passes=INT8)),
    ("int8 weights, odd", operator(_dense(13, 21), *floats([2, 5, 13]), passes=INT8)),
    ("int8 weights, many rows", operator(_dense(48, 64), *floats([40, 48]), passes=INT8)),
    ("int8 weights, 1x1", operator(_pointwise, *floats([1, 16, 5, 7]), passes=INT8)),
    ("int4 weights, one row", operator(_dense(70, 100), *floats([1, 70]), passes=INT4)),
    ("int4 weights, odd", operator(_dense(13, 21), *floats([3, 13]), passes=INT4)),
    ("int4 weights, rounded activations", _rounded(4)),
    ("int8 weights, rounded activations", _rounded(8)),
    ("fp16 dense", operator(_dense(40, 33), *floats([7, 40]), passes=HALF)),
    ("fp16 dense of a row", operator(_dense(64, 96), *floats([1, 64]), passes=HALF)),
    ("fp16 convolution", operator(convolution, *floats([1, 5, 9, 7]), passes=HALF)),
    ("fp16 depthwise convolution", operator(depthwise, *floats([1, 11, 9, 7]), passes=HALF)),
    (
        "fp16 product of activations",
        operator(op.matmul, *floats([2, 9, 14], [2, 14, 21]), passes=HALF),
    ),
    (
        "fp16 product of activations, a row",
        operator(op.matmul, *floats([2, 1, 14], [2, 14, 32]), passes=HALF),
    ),
    (
        "fp16 attention",
        operator(
            attention,
            *floats([1, 7, 2, 5], [1, 9, 2, 5], [1, 9, 2, 5], [1, 1, 1, 9]),
            passes=f"fuse-attention,{HALF}",
        ),
    ),
]
