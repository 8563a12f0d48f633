"""Subgraphs that backends are asked for: Relax functions with constants, by name."""

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import relax

from hybridc.compiler.offload import match
from hybridc.compiler.offload.match import Found

op: Any = relax.op
Shape = tuple[int, ...]


def weight(*shape: int, dtype: str = "float32", seed: int = 0) -> Any:
    """A constant: normal numbers of a size that keeps sums near 1, or any bytes."""
    draw = np.random.default_rng(seed)
    if dtype == "int8":
        return relax.const(draw.integers(-128, 128, shape, "int8"))
    scale = np.sqrt(np.prod(shape[:-1]) or 1)
    return relax.const((draw.standard_normal(shape) / scale).astype("float32"), "float32")


def made(build: Callable[..., Any], *operands: tuple[Shape, str]) -> Any:
    """A module whose `main` computes an expression of inputs of these shapes and types."""
    builder = relax.BlockBuilder()
    inputs = [
        relax.Var(f"x{i}", relax.TensorType(shape, dtype))
        for i, (shape, dtype) in enumerate(operands)
    ]
    with builder.function("main", inputs):
        with builder.dataflow():
            result = builder.emit_output(builder.normalize(build(*inputs)))
        builder.emit_func_output(result)
    return relax.transform.Normalize()(builder.get())


def f32(*shapes: Shape) -> list[tuple[Shape, str]]:
    """Inputs of float32."""
    return [(shape, "float32") for shape in shapes]


def conv(x: Any, w: Any, **attributes: Any) -> Any:
    """A convolution, channels last."""
    return op.nn.conv2d(x, w, data_layout="NHWC", kernel_layout="OHWI", **attributes)


def attend(q: Any, k: Any, v: Any, mask: Any = None, scale: float = 0.25) -> Any:
    """Attention of `[batch, rows, heads, depth]`, as exporters write it."""
    query, value = (op.permute_dims(each, [0, 2, 1, 3]) for each in (q, v))
    scores = op.matmul(query, op.permute_dims(k, [0, 2, 3, 1]))
    scores = op.multiply(scores, relax.const(np.float32(scale)))
    scores = scores if mask is None else op.add(scores, mask)
    weighted = op.matmul(op.nn.softmax(scores, -1), value)
    return op.permute_dims(weighted, [0, 2, 1, 3])


def _bytes(x: Any) -> Any:
    return op.matmul(x, weight(96, 40, dtype="int8"), out_dtype="int32")


def _products() -> dict[str, Any]:
    bias = weight(40)
    relu = op.nn.relu
    return {
        "dense": made(lambda x: op.matmul(x, weight(96, 40)), *f32((7, 96))),
        "dense of rank 3, bias, relu": made(
            lambda x: relu(op.add(op.matmul(x, weight(96, 40)), bias)), *f32((2, 7, 96))
        ),
        "dense, residual, relu": made(
            lambda x, r: relu(op.add(op.add(op.matmul(x, weight(96, 40)), bias), r)),
            *f32((7, 96), (7, 40)),
        ),
        "dense, gelu, scale": made(
            lambda x: op.multiply(op.nn.gelu(op.matmul(x, weight(96, 40))), bias), *f32((7, 96))
        ),
        "dense, least and most": made(
            lambda x: op.minimum(
                op.maximum(op.matmul(x, weight(96, 40)), relax.const(np.float32(0))),
                relax.const(np.float32(1)),
            ),
            *f32((7, 96)),
        ),
        "batched": made(op.matmul, *f32((3, 2, 9, 20), (3, 2, 20, 11))),
        "batched, silu": made(lambda a, b: op.nn.silu(op.matmul(a, b)), *f32((3, 9, 8), (3, 8, 5))),
        "broadcast": made(op.matmul, *f32((3, 2, 9, 20), (20, 11))),
    }


def _convolutions() -> dict[str, Any]:
    relu = op.nn.relu
    return {
        "convolution": made(
            lambda x: conv(x, weight(24, 3, 3, 16), padding=[1, 1]), *f32((2, 14, 14, 16))
        ),
        "strided convolution, bias, relu": made(
            lambda x: relu(op.add(conv(x, weight(24, 5, 3, 3), strides=[2, 1]), weight(24))),
            *f32((1, 20, 19, 3)),
        ),
        "convolution, residual, relu": made(
            lambda x, r: relu(
                op.add(op.add(conv(x, weight(24, 1, 1, 16)), weight(1, 1, 1, 24)), r)
            ),
            *f32((1, 9, 9, 16), (1, 9, 9, 24)),
        ),
        "depthwise convolution": made(
            lambda x: conv(x, weight(16, 3, 3, 1), groups=16, padding=[1, 1], dilation=[2, 2]),
            *f32((1, 12, 12, 16)),
        ),
        "convolution by an input": made(
            lambda x, w: conv(x, w, padding=[1, 1]), *f32((1, 8, 8, 4), (6, 3, 3, 4))
        ),
    }


def modules() -> dict[str, Any]:
    """Every case, as a module of one subgraph."""
    heads = f32((2, 24, 3, 16), (2, 30, 3, 16), (2, 30, 3, 16))
    return {
        **_products(),
        **_convolutions(),
        "attention": made(attend, *heads),
        "attention, mask": made(attend, *heads, ((2, 1, 24, 30), "float32")),
        "bytes": made(_bytes, ((5, 96), "uint8")),
    }


def found(module: Any) -> Found:
    """The one subgraph of a module."""
    (only,) = match.find(module)
    return only
