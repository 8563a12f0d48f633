"""The kernels of a sweep: those of `tuning_kernels`, products of bytes, and more of some rules.

Where a rule has few points, a model meets few of its points in each kernel, so more kernels tell of
it.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tuning_kernels import KERNELS, Kernel, attention, dense, layer_norm, max_pool, mean, softmax
from tvm import relax

op: Any = relax.op
# So many kernels stand between two products of bytes.
_EVERY = 8


def bytes_dense(rows: int, depth: int, columns: int) -> Kernel:
    """A matrix product of bytes with constant weights, into int32."""

    def build(x: Any) -> Any:
        return op.matmul(x, _weights(depth, columns), out_dtype="int32")

    name = f"byte-windows {rows}x{depth}x{columns}"
    return Kernel(name, "byte-windows", build, ((rows, depth),), "uint8")


def bytes_convolution(size: int, inputs: int, outputs: int, window: int, stride: int) -> Kernel:
    """A convolution of square images of bytes, into int32, padded to keep their size."""

    def build(x: Any) -> Any:
        return op.nn.conv2d(
            x,
            _weights(outputs, window, window, inputs),
            strides=stride,
            padding=window // 2,
            data_layout="NHWC",
            kernel_layout="OHWI",
            out_dtype="int32",
        )

    name = f"byte-windows {window}x{window}/{stride} {inputs} to {outputs} at {size}"
    return Kernel(name, "byte-windows", build, ((1, size, size, inputs),), "uint8")


def _weights(*shape: int) -> Any:
    """Weights as quantisation leaves them: a bell that the largest ones stretch to 127."""
    drawn = np.random.default_rng(0).standard_normal(shape)
    return relax.const(np.round(drawn * (127 / np.abs(drawn).max())).astype(np.int8))


_BYTES = (
    bytes_dense(128, 768, 768),
    bytes_convolution(28, 128, 256, 3, 2),
    bytes_dense(784, 128, 512),
    bytes_convolution(56, 64, 128, 3, 2),
    bytes_dense(128, 3072, 768),
    bytes_dense(3136, 64, 256),
    bytes_convolution(14, 256, 512, 3, 2),
    bytes_dense(196, 1024, 256),
    bytes_dense(197, 768, 3072),
    bytes_dense(49, 512, 2048),
)

_FEW_POINTS = (
    max_pool(56, 64, 3, 2),
    mean(196, 512),
    softmax(768, 64),
    dense(2, 1024, 1024),
    layer_norm(16, 4096),
    attention(8, 256, 64),
    max_pool(28, 128, 2, 2),
    mean(784, 256),
    softmax(128, 2048),
    dense(6, 512, 2048),
    attention(12, 64, 64),
    max_pool(14, 512, 3, 2),
    mean(49, 2048),
    softmax(8, 32000),
    layer_norm(1024, 192),
    max_pool(35, 192, 3, 2),
    mean(1024, 96),
    softmax(4096, 77),
    dense(3, 4096, 1024),
    attention(16, 128, 80),
    max_pool(112, 24, 2, 2),
    mean(144, 1536),
    softmax(200, 512),
    dense(12, 2048, 512),
    layer_norm(256, 384),
    max_pool(13, 256, 3, 1),
    mean(400, 32),
    softmax(12, 1024),
    dense(1, 4096, 4096),
    attention(3, 196, 32),
    softmax(6144, 256),
)


def _mixed() -> Iterator[Kernel]:
    left = list(_BYTES)
    for i, kernel in enumerate(KERNELS):
        yield kernel
        if left and i % _EVERY == _EVERY - 1:
            yield left.pop(0)
    yield from left
    yield from _FEW_POINTS


SWEPT: Sequence[Kernel] = tuple(_mixed())
