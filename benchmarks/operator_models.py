"""Models of one operator whose shapes are drawn at random, each kind in shapes as nets have them."""

import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper

Array = Any
OPSET = 20
_FLOPS = 1.5e9  # a product's arithmetic at most: tens of milliseconds on one thread
Draw = random.Random


@dataclass(frozen=True)
class Case:
    """A model of one operator, its inputs, and the kind of operator it is."""

    name: str
    kind: str
    model: Any
    feed: Mapping[str, Array]


@dataclass(frozen=True)
class Node:
    """An operator on an input `x` and, behind it, weights (a product) or constants."""

    name: str
    op: str
    shape: tuple[int, ...]
    weights: tuple[tuple[int, ...], ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    constants: tuple[Array, ...] = ()
    integers: bool = True  # whether there is a QDQ form


def drawn(seed: int) -> Iterator[Case]:
    """All cases of a seed: each product in fp32 and int8, the others in fp32."""
    for kind, (draw_one, count) in KINDS.items():
        draw = Draw(f"{seed}/{kind}")
        for _ in range(count):
            node = draw_one(draw)
            yield Case(f"{kind} {node.name}", kind, *_float_model(node, seed))
            if node.weights and node.integers:
                yield Case(f"{kind} {node.name} int8", f"{kind}-int8", *_byte_model(node, seed))


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
    name = f"{'x'.join(map(str, window))}{''.join(marks)} {inputs}to{outputs}@{'x'.join(map(str, size))}"
    return Node(name, op, (batch, inputs, *size), (weight,), attributes, integers=integers)


def _image(draw: Draw, channels: int, most: float = _FLOPS, per: int = 1) -> int:
    sizes = [s for s in (7, 10, 14, 19, 28, 35, 40, 56, 80, 112) if s * s * channels * per * 2 <= most]
    fitting = [s for s in sizes if s * s * channels <= 2e6]
    return draw.choice(fitting or [7])


def _depthwise(draw: Draw) -> Node:
    channels = draw.choice([16, 24, 32, 48, 64, 96, 128, 144, 192, 240, 256, 384, 512, 672, 960, 1024])
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
    node = _conv(
        (size, size), inputs, outputs, (window, window), stride=2, op="ConvTranspose", integers=False
    )
    pad = (window - 2) // 2
    return Node(node.name, node.op, node.shape, node.weights, {**node.attributes, "pads": [pad] * 4}, integers=False)


def _conv1d(draw: Draw) -> Node:
    channels = draw.choice([16, 32, 64, 80, 128, 256])
    outputs = draw.choice([channels, 2 * channels])
    window, dilation = draw.choice([3, 3, 5, 7, 15]), draw.choice([1, 1, 2, 4, 8])
    size = draw.choice([s for s in (200, 500, 1000, 4000, 8000) if s * channels * outputs * window * 2 < _FLOPS])
    return _conv((size,), channels, outputs, (window,), dilation=dilation)


def _conv3d(draw: Draw) -> Node:
    inputs, outputs = draw.choice([3, 16, 32, 64]), draw.choice([16, 32, 64])
    size = draw.choice([s for s in (7, 14, 28, 56) if 16 * s * s * inputs * outputs * 27 * 2 < 2 * _FLOPS])
    return _conv((draw.choice([4, 8, 16]), size, size), inputs, outputs, (3, 3, 3), integers=False)


def _pointwise(draw: Draw) -> Node:
    inputs, outputs = draw.choice([256, 512, 832, 1024, 2048]), draw.choice([128, 320, 512, 2048])
    size = draw.choice([4, 7, 7])
    return _conv((size, size), inputs, outputs, (1, 1))


def _conv3(draw: Draw) -> Node:
    inputs, outputs = draw.choice([3, 24, 48, 64, 100, 160, 256]), draw.choice([24, 40, 64, 100, 192, 256])
    size = _image(draw, inputs * outputs // 24, per=24 * 9)
    window = draw.choice([3, 3, 5])
    return _conv((size, size), inputs, outputs, (window, window), stride=draw.choice([1, 2]))


def _product(name: str, rows: tuple[int, ...], depth: int, columns: int, integers: bool = True) -> Node:
    return Node(name, "MatMul", (*rows, depth), ((depth, columns),), integers=integers)


def _few_rows(draw: Draw) -> Node:
    rows = draw.choice([1, 2, 3, 4, 7, 8, 12, 16])
    depth, columns = draw.choice([768, 1024, 2048, 4096]), draw.choice([1000, 2048, 3072, 4096])
    return _product(f"{rows}x{depth}x{columns}", (rows,), depth, columns)


def _odd(draw: Draw) -> Node:
    sizes = [(197, 197, 64), (333, 777, 555), (577, 64, 577), (127, 300, 1), (1001, 37, 3), (65, 129, 257)]
    sizes += [tuple(draw.randint(1, 700) for _ in range(3)) for _ in range(6)]
    rows, depth, columns = draw.choice(sizes)
    return _product(f"{rows}x{depth}x{columns}", (rows,), depth, columns)


def _batched(draw: Draw) -> Node:
    size, batch = draw.choice([3, 4, 8, 16, 24]), draw.choice([64, 256, 1024, 4096])
    return Node(f"{batch}x{size}", "MatMul", (batch, size, size), attributes={"_second": True})


def _outer(draw: Draw) -> Node:
    rows, columns = draw.choice([100, 512, 1000]), draw.choice([100, 513, 2048])
    return Node(f"{rows}x1x{columns}", "MatMul", (rows, 1), attributes={"_second": (1, columns)})


def _gather(draw: Draw) -> Node:
    rows, columns = draw.choice([1000, 8000, 30000]), draw.choice([64, 100, 768])
    places = np.array([draw.randrange(rows) for _ in range(draw.choice([128, 1024, 4096]))])
    return Node(f"{len(places)} of {rows}x{columns}", "Gather", (rows, columns), attributes={"axis": 0}, constants=(places,))


def _softmax(draw: Draw) -> Node:
    rows, columns = draw.choice([1536, 3072, 12 * 197]), draw.choice([10, 49, 64, 128, 197, 512, 1000])
    return Node(f"{rows}x{columns}", "Softmax", (rows, columns), attributes={"axis": -1})


def _lrn(draw: Draw) -> Node:
    channels, size = draw.choice([64, 96, 192, 256]), draw.choice([13, 27, 55])
    return Node(f"{channels}@{size}", "LRN", (1, channels, size, size), attributes={"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 1.0})


def _resize(draw: Draw) -> Node:
    channels, size, scale = draw.choice([3, 32, 64, 256]), draw.choice([20, 28, 40, 56]), draw.choice([2.0, 2.0, 3.0, 1.5])
    scales = np.array([1, 1, scale, scale], np.float32)
    attributes = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
    return Node(f"{channels}@{size} by {scale}", "Resize", (1, channels, size, size), (), attributes, (np.array([], np.float32), scales))


def _power(draw: Draw) -> Node:
    exponent = np.float32(draw.choice([2.2, 0.45, 1.7, -1.3, 3.0]))
    return Node(f"{exponent:.2f}", "Pow", (draw.choice([100_000, 400_000]),), constants=(exponent,))


def _unary(draw: Draw) -> Node:
    op = draw.choice(["Mish", "Gelu", "Softplus", "Erf", "Tanh", "Sigmoid", "Exp", "Log", "HardSwish"])
    return Node(op, op, (draw.choice([64, 128]), draw.choice([768, 3072])))


def _transpose(draw: Draw) -> Node:
    rows, columns = draw.choice([512, 1000, 2048, 4096]), draw.choice([513, 768, 2048, 4096])
    return Node(f"{rows}x{columns}", "Transpose", (rows, columns), attributes={"perm": [1, 0]})


def _sum(draw: Draw) -> Node:
    rows, columns = draw.choice([128, 1024, 4096]), draw.choice([100, 256, 1000, 1024])
    axis = draw.choice([0, 0, 1])
    return Node(f"{rows}x{columns} axis {axis}", "ReduceSum", (rows, columns), constants=(np.array([axis]),))


def _cumulative(draw: Draw) -> Node:
    rows, columns, axis = draw.choice([64, 1024]), draw.choice([100, 1024, 2048]), draw.choice([0, 1])
    return Node(f"{rows}x{columns} axis {axis}", "CumSum", (rows, columns), constants=(np.array(axis),))


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


def _float_model(node: Node, seed: int) -> tuple[Any, dict[str, Array]]:
    rng = np.random.default_rng(seed)
    constants = dict(zip("wb", (_weight(shape, rng) for shape in node.weights), strict=False))
    constants |= {f"c{i}": value for i, value in enumerate(node.constants)}
    feed = {"x": (np.abs(rng.standard_normal(node.shape)) + 0.01).astype(np.float32)}
    attributes = dict(node.attributes)
    second = attributes.pop("_second", None)
    if second:
        shape = node.shape if second is True else second
        feed["y"] = rng.standard_normal(shape).astype(np.float32)
    made = helper.make_node(node.op, [*feed, *constants], ["out"], **attributes)
    return _model([made], constants, feed, TensorProto.FLOAT), feed


def _byte_model(node: Node, seed: int) -> tuple[Any, dict[str, Array]]:
    rng = np.random.default_rng(seed)
    (shape,) = node.weights
    axis = 1 if node.op == "MatMul" else 0
    bell = np.clip(np.round(rng.normal(0, 38, shape)), -127, 127).astype(np.int8)
    depth = prod(shape) // shape[axis]
    scale = np.float32(1 / 512)
    constants = {
        "w": bell,
        "ws": np.full(shape[axis], scale, np.float32),
        "wz": np.zeros(shape[axis], np.int8),
        "xs": np.float32(1 / 128),
        "xz": np.uint8(0),
        "os": np.float32(depth**0.5 / 512),
        "oz": np.uint8(128),
    }
    feed = {"x": rng.integers(0, 256, node.shape).astype(np.uint8)}
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "xs", "xz"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=axis),
        helper.make_node(node.op, ["xf", "wf"], ["yf"], **node.attributes),
        helper.make_node("QuantizeLinear", ["yf", "os", "oz"], ["out"]),
    ]
    return _model(nodes, constants, feed, TensorProto.UINT8), feed


def _weight(shape: tuple[int, ...], rng: Any) -> Array:
    depth = max(1, prod(shape) // max(shape))
    return (rng.standard_normal(shape) / depth**0.5).astype(np.float32)


def _model(nodes: Any, constants: Mapping[str, Array], feed: Mapping[str, Array], out: int) -> Any:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(x.dtype), x.shape)
        for name, x in feed.items()
    ]
    result = helper.make_tensor_value_info("out", out, None)
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "operator", inputs, [result], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=10)
