"""Models of one operator whose shapes are drawn at random, as nets have them."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np
from operator_graphs import Case, Node, byte_model, float_model

_FLOPS = 1.5e9  # a product's arithmetic at most: tens of milliseconds on one thread
Draw = random.Random


def drawn(seed: int) -> Iterator[Case]:
    """All cases of a seed: each product in fp32 and int8, the others in fp32."""
    for kind, (draw_one, count) in KINDS.items():
        draw = Draw(f"{seed}/{kind}")
        for _ in range(count):
            node = draw_one(draw)
            yield Case(f"{kind} {node.name}", kind, *float_model(node, seed))
            if node.weights and node.integers:
                yield Case(f"{kind} {node.name} int8", f"{kind}-int8", *byte_model(node, seed))


def _conv(  # noqa: PLR0913 - a convolution's numbers
    size: tuple[int, ...],
    inputs: int,
    outputs: int,
    window: tuple[int, ...],
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    batch: int = 1,
    op: str = "Conv",
    integers: bool = True,
) -> Node:
    rank = len(size)
    pads = [dilation * (k - 1) // 2 for k in window] * 2
    attributes = {
        "kernel_shape": list(window),
        "strides": [stride] * rank,
        "dilations": [dilation] * rank,
        "group": groups,
        "pads": pads,
    }
    weight = (outputs, inputs // groups, *window)
    if op == "ConvTranspose":
        weight = (inputs, outputs // groups, *window)
    marks = [f"/{stride}" if stride > 1 else "", f" d{dilation}" if dilation > 1 else ""]
    marks.append(f" g{groups}" if 1 < groups < inputs else "")
    taps, pixels = ("x".join(map(str, extents)) for extents in (window, size))
    name = f"{taps}{''.join(marks)} {inputs}to{outputs}@{pixels}"
    return Node(name, op, (batch, inputs, *size), (weight,), attributes, integers=integers)


def _image(draw: Draw, channels: int, most: float = _FLOPS, per: int = 1) -> int:
    sizes = (7, 10, 14, 19, 28, 35, 40, 56, 80, 112)
    fitting = [s for s in sizes if s * s * channels * per * 2 <= most and s * s * channels <= 2e6]
    return draw.choice(fitting or [7])


def _depthwise(draw: Draw) -> Node:
    channels = draw.choice((16, 24, 32, 48, 64, 96, 128, 144, 192, 240, 256, 384, 512, 672, 960))
    window = draw.choice([3, 3, 3, 5, 7])
    size = _image(draw, channels)
    stride = draw.choice([1, 1, 2])
    return _conv((size, size), channels, channels, (window, window), stride=stride, groups=channels)


def _dilated(draw: Draw) -> Node:
    channels = draw.choice([32, 64, 128, 256, 512])
    size = _image(draw, channels)
    dilation = draw.choice([2, 3, 4])
    return _conv((size, size), channels, channels, (3, 3), dilation=dilation, groups=channels)


def _grouped(draw: Draw) -> Node:
    each = draw.choice([4, 8, 16])
    groups = draw.choice([8, 16, 32])
    channels = each * groups
    size = _image(draw, channels, per=9 * each)
    stride = draw.choice([1, 1, 2])
    return _conv((size, size), channels, channels, (3, 3), stride=stride, groups=groups)


def _transposed(draw: Draw) -> Node:
    inputs, outputs = draw.choice([32, 64, 128]), draw.choice([1, 3, 3, 16, 21, 64])
    window = draw.choice([2, 4, 4])
    size = draw.choice([14, 28, 32, 56, 64])
    image, taps, op = (size, size), (window, window), "ConvTranspose"
    node = _conv(image, inputs, outputs, taps, stride=2, op=op, integers=False)
    pads = [(window - 2) // 2] * 4
    return replace(node, attributes={**node.attributes, "pads": pads})


def _conv1d(draw: Draw) -> Node:
    channels = draw.choice([16, 32, 64, 80, 128, 256])
    outputs = draw.choice([channels, 2 * channels])
    window, dilation = draw.choice([3, 3, 5, 7, 15]), draw.choice([1, 1, 2, 4, 8])
    each = channels * outputs * window * 2
    size = draw.choice([s for s in (200, 500, 1000, 4000, 8000) if s * each < _FLOPS])
    return _conv((size,), channels, outputs, (window,), dilation=dilation)


def _conv3d(draw: Draw) -> Node:
    inputs, outputs = draw.choice([3, 16, 32, 64]), draw.choice([16, 32, 64])
    each = 16 * inputs * outputs * 27
    size = draw.choice([s for s in (7, 14, 28, 56) if s * s * each < _FLOPS])
    return _conv((draw.choice([4, 8, 16]), size, size), inputs, outputs, (3, 3, 3), integers=False)


def _pointwise(draw: Draw) -> Node:
    inputs, outputs = draw.choice([256, 512, 832, 1024, 2048]), draw.choice([128, 320, 512, 2048])
    size = draw.choice([4, 7, 7])
    return _conv((size, size), inputs, outputs, (1, 1))


def _conv3(draw: Draw) -> Node:
    inputs = draw.choice([3, 24, 48, 64, 100, 160, 256])
    outputs = draw.choice([24, 40, 64, 100, 192, 256])
    size = _image(draw, inputs * outputs // 24, per=24 * 9)
    window = draw.choice([3, 3, 5])
    return _conv((size, size), inputs, outputs, (window, window), stride=draw.choice([1, 2]))


def _product(rows: int, depth: int, columns: int) -> Node:
    return Node(f"{rows}x{depth}x{columns}", "MatMul", (rows, depth), ((depth, columns),))


def _few_rows(draw: Draw) -> Node:
    rows = draw.choice([1, 2, 3, 4, 7, 8, 12, 16])
    depth, columns = draw.choice([768, 1024, 2048, 4096]), draw.choice([1000, 2048, 3072, 4096])
    return _product(rows, depth, columns)


def _odd(draw: Draw) -> Node:
    sizes = [
        (197, 197, 64),
        (333, 777, 555),
        (577, 64, 577),
        (127, 300, 1),
        (1001, 37, 3),
        (65, 129, 257),
    ]
    sizes += [tuple(draw.randint(1, 700) for _ in range(3)) for _ in range(6)]
    rows, depth, columns = draw.choice(sizes)
    return _product(rows, depth, columns)


def _batched(draw: Draw) -> Node:
    size, batch = draw.choice([3, 4, 8, 16, 24]), draw.choice([64, 256, 1024, 4096])
    return Node(f"{batch}x{size}", "MatMul", (batch, size, size), attributes={"_second": True})


def _outer(draw: Draw) -> Node:
    rows, columns = draw.choice([100, 512, 1000]), draw.choice([100, 513, 2048])
    return Node(f"{rows}x1x{columns}", "MatMul", (rows, 1), attributes={"_second": (1, columns)})


def _gather(draw: Draw) -> Node:
    rows, columns = draw.choice([1000, 8000, 30000]), draw.choice([64, 100, 768])
    places = np.array([draw.randrange(rows) for _ in range(draw.choice([128, 1024, 4096]))])
    name = f"{len(places)} of {rows}x{columns}"
    return Node(name, "Gather", (rows, columns), attributes={"axis": 0}, constants=(places,))


def _softmax(draw: Draw) -> Node:
    rows = draw.choice([1536, 3072, 12 * 197])
    columns = draw.choice([10, 49, 64, 128, 197, 512, 1000])
    return Node(f"{rows}x{columns}", "Softmax", (rows, columns), attributes={"axis": -1})


def _lrn(draw: Draw) -> Node:
    channels, size = draw.choice([64, 96, 192, 256]), draw.choice([13, 27, 55])
    attributes = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0}
    return Node(f"{channels}@{size}", "LRN", (1, channels, size, size), attributes=attributes)


def _resize(draw: Draw) -> Node:
    channels, size = draw.choice([3, 32, 64, 256]), draw.choice([20, 28, 40, 56])
    scale = draw.choice([2.0, 2.0, 3.0, 1.5])
    constants = np.array([], np.float32), np.array([1, 1, scale, scale], np.float32)
    attributes = {"mode": "nearest", "nearest_mode": "floor"}
    attributes["coordinate_transformation_mode"] = "asymmetric"
    shape = 1, channels, size, size
    return Node(f"{channels}@{size} by {scale}", "Resize", shape, (), attributes, constants)


def _power(draw: Draw) -> Node:
    exponent = np.float32(draw.choice([2.2, 0.45, 1.7, -1.3, 3.0]))
    size = draw.choice([100_000, 400_000])
    return Node(f"{exponent:.2f}", "Pow", (size,), constants=(exponent,))


def _unary(draw: Draw) -> Node:
    op = draw.choice(
        ["Mish", "Gelu", "Softplus", "Erf", "Tanh", "Sigmoid", "Exp", "Log", "HardSwish"]
    )
    return Node(op, op, (draw.choice([64, 128]), draw.choice([768, 3072])))


def _transpose(draw: Draw) -> Node:
    rows, columns = draw.choice([512, 1000, 2048, 4096]), draw.choice([513, 768, 2048, 4096])
    return Node(f"{rows}x{columns}", "Transpose", (rows, columns), attributes={"perm": [1, 0]})


def _sum(draw: Draw) -> Node:
    rows, columns = draw.choice([128, 1024, 4096]), draw.choice([100, 256, 1000, 1024])
    axis = draw.choice([0, 0, 1])
    name, constants = f"{rows}x{columns} axis {axis}", (np.array([axis]),)
    return Node(name, "ReduceSum", (rows, columns), constants=constants)


def _cumulative(draw: Draw) -> Node:
    rows, columns = draw.choice([64, 1024]), draw.choice([100, 1024, 2048])
    axis = draw.choice([0, 1])
    name, constants = f"{rows}x{columns} axis {axis}", (np.array(axis),)
    return Node(name, "CumSum", (rows, columns), constants=constants)


KINDS: Mapping[str, tuple[Callable[[Draw], Node], int]] = MappingProxyType(
    {
        "depthwise": (_depthwise, 6),
        "dilated": (_dilated, 2),
        "grouped": (_grouped, 3),
        "transposed": (_transposed, 2),
        "conv1d": (_conv1d, 3),
        "conv3d": (_conv3d, 2),
        "pointwise": (_pointwise, 2),
        "conv": (_conv3, 3),
        "few rows": (_few_rows, 3),
        "odd": (_odd, 3),
        "batched": (_batched, 2),
        "outer": (_outer, 1),
        "gather": (_gather, 2),
        "softmax": (_softmax, 2),
        "lrn": (_lrn, 1),
        "resize": (_resize, 2),
        "power": (_power, 1),
        "unary": (_unary, 2),
        "transpose": (_transpose, 1),
        "sum": (_sum, 2),
        "cumsum": (_cumulative, 2),
    }
)
