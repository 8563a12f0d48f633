"""Products and convolutions in fp32, and attention."""

from collections.abc import Callable
from typing import Any

from kernel_builders import LOWERED, PACKED, PLANES, Builder, constant, floats, op, operator
from tvm import relax


def convolution(x: Any) -> Any:
    return op.nn.conv2d(x, constant(10, 5, 3, 3), strides=(2, 1), padding=1)


def depthwise(x: Any) -> Any:
    return op.nn.relu(op.nn.conv2d(x, constant(11, 1, 3, 3), strides=(1, 2), padding=1, groups=11))


def _window(
    inputs: int, outputs: int, size: int, groups: int = 1, **attributes: Any
) -> Callable[..., Any]:
    """A convolution with a square window and a relu behind it."""
    weight = constant(outputs, inputs // groups, size, size)
    return lambda x: op.nn.relu(op.nn.conv2d(x, weight, groups=groups, **attributes))


def _volumes(channels: int, window: tuple[int, ...], **attributes: Any) -> Callable[..., Any]:
    """A convolution of each channel of a volume alone, with a relu behind it."""
    weight = constant(channels, 1, *window)
    return lambda x: op.nn.relu(op.nn.conv3d(x, weight, groups=channels, **attributes))


def attention(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """Heads of `[batch, length, heads, depth]`, as exporters write them."""
    queries, values = (op.permute_dims(x, [0, 2, 1, 3]) for x in (q, v))
    scores = op.matmul(queries, op.permute_dims(k, [0, 2, 3, 1]))
    scaled = op.add(op.multiply(scores, relax.const(0.5, "float32")), mask)
    return op.matmul(op.nn.softmax(scaled, axis=-1), values)


def _grouped_attention(q: Any, k: Any, v: Any, mask: Any) -> Any:
    """Three queries of each head of keys `[batch, heads, length, depth]`, masked by booleans."""

    def repeated(x: Any) -> Any:
        copies = op.broadcast_to(op.expand_dims(x, [2]), (1, 2, 3, 9, 16))
        return op.reshape(copies, (1, 6, 9, 16))

    scores = op.matmul(q, op.permute_dims(repeated(k), [0, 1, 3, 2]))
    masked = op.where(mask, scores, relax.const(-1e9, "float32"))
    return op.matmul(op.nn.softmax(masked, axis=-1), repeated(v))


def _bottleneck(
    inputs: int, channels: int, outputs: int, size: int = 3, **attributes: Any
) -> Callable[..., Any]:
    """Expansion, depthwise window, projection; 0 `inputs` or `outputs` leaves one out."""

    def build(x: Any) -> Any:
        if inputs:
            x = op.nn.relu(op.nn.conv2d(x, constant(channels, inputs, 1, 1)))
        x = _window(channels, channels, size, channels, **attributes)(x)
        return op.nn.conv2d(x, constant(outputs, channels, 1, 1)) if outputs else x

    return build


PRODUCTS: list[tuple[str, Builder]] = [
    # Contractions.
    ("product of activations", operator(op.matmul, *floats([2, 9, 13], [2, 13, 21]))),
    ("product of whole vectors", operator(op.matmul, *floats([2, 9, 13], [2, 13, 32]))),
    ("product of a row", operator(op.matmul, *floats([1, 40], [40, 64]))),
    (
        "product of few rows and an epilogue",
        operator(lambda a, b: op.nn.relu(op.matmul(a, b)), *floats([2, 3, 13], [2, 13, 48])),
    ),
    ("product with a vector", operator(op.matmul, *floats([9, 13], [13]))),
    (
        "dense",
        operator(lambda x: op.matmul(x, constant(13, 21)), *floats([2, 5, 13]), passes=PACKED),
    ),
    (
        "dense, few rows",
        operator(lambda x: op.matmul(x, constant(600, 1001)), *floats([11, 600]), passes=PACKED),
    ),
    (
        "dense, one row and an epilogue",
        operator(
            lambda x: op.nn.relu(op.matmul(x, constant(700, 960))),
            *floats([1, 1, 700]),
            passes=PACKED,
        ),
    ),
    (
        "dense of many panels",
        operator(
            lambda x: op.nn.relu(op.matmul(x, constant(40, 205))), *floats([29, 40]), passes=PACKED
        ),
    ),
    ("convolution", operator(convolution, *floats([1, 5, 9, 7]), passes=PACKED)),
    (
        "convolution of many panels",
        operator(_window(7, 100, 3, padding=1, strides=2), *floats([2, 7, 5, 9]), passes=PACKED),
    ),
    (
        "dense of a panel that is not whole",
        operator(lambda x: op.matmul(x, constant(13, 44)), *floats([29, 13]), passes=PACKED),
    ),
    (
        "convolution of a panel that is not whole",
        operator(_window(5, 40, 3, padding=1), *floats([1, 5, 4, 27]), passes=PACKED),
    ),
    (
        "convolution of half vectors",
        operator(_window(5, 23, 3, padding=1), *floats([1, 5, 9, 11]), passes=PACKED),
    ),
    (
        "groups of half vectors",
        operator(_window(6, 24, 3, 3, padding=1), *floats([1, 6, 9, 7]), passes=PACKED),
    ),
    (
        "groups of a quarter of a vector",
        operator(_window(12, 16, 3, 4, dilation=2), *floats([2, 12, 9, 8]), passes=PACKED),
    ),
    ("depthwise convolution", operator(depthwise, *floats([1, 11, 9, 7]), passes=PACKED)),
    (
        "depthwise, channels first",
        operator(
            lambda x: op.nn.relu(_window(11, 11, 3, 11, padding=(2, 1, 0, 3), dilation=2)(x)),
            *floats([2, 11, 9, 19]),
            passes=PLANES,
        ),
    ),
    (
        "depthwise, channels first, 5x5, strided",
        operator(_window(5, 5, 5, 5, padding=2, strides=2), *floats([1, 5, 13, 37]), passes=PLANES),
    ),
    (
        "depthwise, 7x7 on a small image",
        operator(_window(48, 48, 7, 48, padding=3), *floats([1, 48, 7, 7]), passes=PACKED),
    ),
    (
        "depthwise, long rows",
        operator(_window(16, 16, 3, 16, padding=1), *floats([2, 16, 5, 37]), passes=PACKED),
    ),
    (
        "depthwise, 5x5, strided and dilated",
        operator(
            _window(24, 24, 5, 24, strides=2, padding=(3, 1, 4, 2), dilation=(2, 1)),
            *floats([1, 24, 11, 23]),
            passes=PACKED,
        ),
    ),
    (
        "depthwise, more padding than image",
        operator(_window(8, 16, 3, 8, padding=4), *floats([1, 8, 2, 3]), passes=PACKED),
    ),
    (
        "depthwise, last vectors that overlap",
        operator(_window(20, 20, 3, 20, padding=1), *floats([1, 20, 6, 7]), passes=PACKED),
    ),
    (
        "depthwise, volumes",
        operator(
            _volumes(19, (2, 3, 1), strides=(1, 2, 1), padding=(1, 0, 1, 0, 1, 0)),
            *floats([2, 19, 3, 5, 9]),
            passes=f"lift-conv3d,{LOWERED}",
        ),
    ),
    (
        "depthwise, volumes, along the depth",
        operator(
            _volumes(8, (3, 1, 1), padding=(2, 0, 0, 2, 0, 0), dilation=(2, 1, 1)),
            *floats([1, 8, 5, 1, 6]),
            passes=f"lift-conv3d,{LOWERED}",
        ),
    ),
    (
        "bottleneck",
        operator(
            _bottleneck(8, 48, 24, padding=1),
            *floats([1, 8, 14, 13]),
            passes=f"{PACKED},fuse-depthwise",
        ),
    ),
    (
        "bottleneck, strided, without projection",
        operator(
            _bottleneck(5, 33, 0, strides=2, padding=(0, 1, 2, 1)),
            *floats([1, 5, 12, 11]),
            passes=f"{PACKED},fuse-depthwise",
        ),
    ),
    (
        "window and projection",
        operator(
            _bottleneck(0, 32, 7, size=5, padding=2),
            *floats([2, 32, 8, 9]),
            passes=f"{PACKED},fuse-depthwise",
        ),
    ),
    (
        "convolution by Winograd's filtering",
        operator(
            lambda x: op.nn.conv2d(x, constant(64, 64, 3, 3), padding=1),
            *floats([1, 64, 28, 28]),
            passes=PACKED,
        ),
    ),
    (
        "attention",
        operator(
            attention,
            *floats([1, 7, 2, 5], [1, 9, 2, 5], [1, 9, 2, 5], [1, 1, 1, 9]),
            passes=f"fuse-attention,{LOWERED}",
        ),
    ),
    (
        "attention of one query",
        operator(
            attention,
            *floats([1, 1, 2, 8], [1, 19, 2, 8], [1, 19, 2, 8], [1, 1, 1, 19]),
            passes=f"fuse-attention,{LOWERED}",
        ),
    ),
    (
        "attention of grouped heads",
        operator(
            _grouped_attention,
            *floats([1, 6, 5, 16], [1, 2, 9, 16], [1, 2, 9, 16]),
            ([5, 9], "bool"),
            passes=f"fuse-attention,{LOWERED}",
        ),
    ),
    (
        "convolution, channels first",
        operator(lambda x, w: op.nn.conv2d(x, w, padding=1), *floats([1, 3, 9, 9], [5, 3, 3, 3])),
    ),
]
