"""Small ONNX models whose inputs have open sizes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from hybridc.compiler.model import Array

DIGITS = Path(__file__).parent.parent / "examples/digits/digits.onnx"
_TYPES = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
Shape = Sequence[int | str]


class Builder:
    """Collects nodes and constants; each call of `op` gives the name of a node's output."""

    def __init__(self, seed: int = 0) -> None:
        self._rng = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def op(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """A node of one output."""
        name = f"{kind.lower()}{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def constant(self, array: Array | np.generic) -> str:
        """An initialiser."""
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ints(self, *values: int) -> str:
        """A constant list of int64."""
        return self.constant(np.array(values, np.int64))

    def noise(self, *shape: int) -> str:
        """A constant of small random numbers."""
        array = self._rng.standard_normal(shape) / np.sqrt(shape[0])
        return self.constant(array.astype(np.float32))

    def size(self, tensor: str, axis: int) -> str:
        """One size of a tensor as a list of one, as exporters write it."""
        shape = self.op("Shape", tensor)
        scalar = self.op("Gather", shape, self.constant(np.array(axis, np.int64)), axis=0)
        return self.op("Unsqueeze", scalar, self.ints(0))

    def model(
        self, inputs: dict[str, tuple[Shape, str]], outputs: dict[str, str], opset: int = 18
    ) -> Any:
        """The model; `outputs` are types by the name of a value."""
        given = [
            helper.make_tensor_value_info(name, _TYPES[kind], list(shape))
            for name, (shape, kind) in inputs.items()
        ]
        made = [
            helper.make_tensor_value_info(name, _TYPES[kind], None)
            for name, kind in outputs.items()
        ]
        graph = helper.make_graph(self._nodes, "open", given, made, self._constants)
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10
        )


def digits(batch: int | str = "batch") -> Any:
    """The network of the example with another, or an open, number of images."""
    model = onnx.load(DIGITS)
    graph = model.graph
    dim = graph.input[0].type.tensor_type.shape.dim[0]
    dim.Clear()
    if isinstance(batch, str):
        dim.dim_param = batch
    else:
        dim.dim_value = batch
    graph.output[0].type.tensor_type.ClearField("shape")
    for tensor in graph.initializer:
        if tensor.name == "val_24":
            flat = numpy_helper.to_array(tensor).copy()
            flat[0] = -1
            tensor.CopyFrom(numpy_helper.from_array(flat, "val_24"))
    return model


def residual(batch: str = "batch", channels: int = 16, side: int = 12) -> Any:
    """A small residual network with strides, pooling and a depthwise convolution."""
    b = Builder(1)
    x = b.op("Conv", "x", b.noise(channels, 3, 3, 3), pads=[1] * 4)
    x = b.op("Relu", x)
    y = b.op("Conv", x, b.noise(channels, channels, 3, 3), b.noise(channels), pads=[1] * 4)
    x = b.op("Relu", b.op("Add", y, x))
    x = b.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    y = b.op("Conv", x, b.noise(2 * channels, channels, 1, 1))
    y = b.op("Clip", y, b.constant(np.float32(0)), b.constant(np.float32(6)))
    y = b.op(
        "Conv", y, b.noise(2 * channels, 1, 3, 3), pads=[1] * 4, group=2 * channels, strides=[2, 2]
    )
    y = b.op("Conv", b.op("Relu", y), b.noise(channels, 2 * channels, 1, 1))
    y = b.op("GlobalAveragePool", y)
    y = b.op("Flatten", y)
    y = b.op("Gemm", y, b.noise(10, channels), b.noise(10), transB=1)
    return b.model({"x": ((batch, 3, side, side), "float32")}, {y: "float32"})


def transformer(
    batch: int | str = "batch", length: int | str = "length", width: int = 32, heads: int = 2
) -> Any:
    """One block of an encoder, written as exporters do, with a mask and a table of 48 positions."""
    b = Builder(2)
    depth = width // heads
    x = b.op("Gather", b.noise(60, width), "ids")
    positions = b.op("Slice", b.noise(1, 48, width), b.ints(0), b.size("ids", 1), b.ints(1))
    x = b.op("Add", x, positions)
    x = _norm(b, x, width)
    rows = (b.size(x, 0), b.size(x, 1))

    def split(weight: str) -> str:
        projected = b.op("Add", b.op("MatMul", x, weight), b.noise(width))
        shape = b.op("Concat", *rows, b.ints(heads), b.ints(depth), axis=0)
        return b.op("Transpose", b.op("Reshape", projected, shape), perm=[0, 2, 1, 3])

    q, k, v = (split(b.noise(width, width)) for _ in range(3))
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
    scores = b.op("Div", scores, b.constant(np.float32(np.sqrt(depth))))
    kept = b.op("Cast", b.op("Unsqueeze", "mask", b.ints(1, 2)), to=TensorProto.FLOAT)
    away = b.op("Mul", b.op("Sub", b.constant(np.float32(1)), kept), b.constant(np.float32(-1e4)))
    weights = b.op("Softmax", b.op("Add", scores, away), axis=-1)
    y = b.op("Transpose", b.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    y = b.op("Reshape", y, b.op("Concat", *rows, b.ints(width), axis=0))
    x = _norm(b, b.op("Add", x, b.op("MatMul", y, b.noise(width, width))), width)
    y = b.op("Add", b.op("MatMul", x, b.noise(width, 3 * width)), b.noise(3 * width))
    half = b.op("Mul", y, b.constant(np.float32(0.5)))
    erf = b.op("Erf", b.op("Div", y, b.constant(np.float32(np.sqrt(2)))))
    y = b.op("Mul", half, b.op("Add", erf, b.constant(np.float32(1))))
    x = _norm(b, b.op("Add", x, b.op("MatMul", y, b.noise(3 * width, width))), width)
    pooled = b.op("ReduceMean", x, b.ints(1), keepdims=0)
    shape = (batch, length)
    return b.model(
        {"ids": (shape, "int64"), "mask": (shape, "int64")}, {x: "float32", pooled: "float32"}
    )


def _norm(b: Builder, x: str, width: int) -> str:
    return b.op("LayerNormalization", x, b.noise(width), b.noise(width), axis=-1, epsilon=1e-5)


def joined(batch: str = "batch", length: str = "length") -> Any:
    """Concatenation along an open axis, reshapes with -1, arithmetic on sizes, and a slice."""
    b = Builder(3)
    both = b.op("Concat", "x", "y", axis=1)
    flat = b.op("Reshape", both, b.ints(-1, 6))
    flat = b.op("Relu", flat)
    doubled = b.op("Mul", b.size("x", 1), b.ints(2))
    shape = b.op("Concat", b.size("x", 0), doubled, b.ints(3), b.ints(2), axis=0)
    back = b.op("Reshape", flat, shape)
    half = b.op("Div", b.op("Shape", back), b.ints(2))
    end = b.op("Gather", half, b.ints(1), axis=0)
    front = b.op("Slice", back, b.ints(0), end, b.ints(1))
    turned = b.op("Transpose", front, perm=[0, 3, 1, 2])
    given: Shape = (batch, length, 6)
    return b.model({"x": (given, "float32"), "y": (given, "float32")}, {turned: "float32"})


def decoder(width: int = 32, heads: int = 2) -> Any:
    """One block of a decoder with keys and values of the past, and 64 positions."""
    b = Builder(5)
    depth = width // heads
    x = b.op("Gather", b.noise(60, width), "ids")
    batch, new, past = b.size("ids", 0), b.size("ids", 1), b.size("past_k", 2)
    all_of_them = b.op("Add", new, past)
    zero, one = (b.constant(np.array(n)) for n in (0, 1))
    first, last = (b.op("Squeeze", size, b.ints(0)) for size in (past, all_of_them))
    places = b.op("Range", first, last, one)
    x = _norm(b, b.op("Add", x, b.op("Gather", b.noise(64, width), places)), width)
    shape = b.op("Concat", batch, new, b.ints(heads), b.ints(depth), axis=0)
    q, k, v = (
        b.op(
            "Transpose",
            b.op("Reshape", b.op("MatMul", x, b.noise(width, width)), shape),
            perm=[0, 2, 1, 3],
        )
        for _ in range(3)
    )
    k, v = b.op("Concat", "past_k", k, axis=2), b.op("Concat", "past_v", v, axis=2)
    scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 1, 3, 2]))
    columns = b.op("Unsqueeze", b.op("Range", zero, last, one), b.ints(0))
    met = b.op("LessOrEqual", columns, b.op("Unsqueeze", places, b.ints(1)))
    away = b.op("Where", met, b.constant(np.float32(0)), b.constant(np.float32(-1e9)))
    weights = b.op("Softmax", b.op("Add", scores, away), axis=-1)
    y = b.op("Transpose", b.op("MatMul", weights, v), perm=[0, 2, 1, 3])
    y = b.op("Reshape", y, b.op("Concat", batch, new, b.ints(width), axis=0))
    x = b.op("Add", x, b.op("MatMul", y, b.noise(width, width)))
    logits = b.op("MatMul", _norm(b, x, width), b.noise(width, 60))
    kept = ("batch", heads, "past", depth)
    return b.model(
        {
            "ids": (("batch", "new"), "int64"),
            "past_k": (kept, "float32"),
            "past_v": (kept, "float32"),
        },
        {logits: "float32", k: "float32", v: "float32"},
    )


def image(channels: int = 16) -> Any:
    """A network of convolutions for images of any height and width, with one transposed."""
    b = Builder(6)
    x = b.op("Relu", b.op("Conv", "x", b.noise(channels, 3, 3, 3), b.noise(channels), pads=[1] * 4))
    x = b.op("MaxPool", x, kernel_shape=[2, 2], strides=[2, 2], pads=[0, 0, 1, 1])
    x = b.op("Conv", x, b.noise(channels, 1, 3, 3), pads=[1] * 4, group=channels)
    x = b.op("Clip", x, b.constant(np.float32(0)), b.constant(np.float32(6)))
    x = b.op("Relu", b.op("ConvTranspose", x, b.noise(channels, 8, 2, 2), strides=[2, 2]))
    y = b.op("Conv", x, b.noise(3, 8, 1, 1))
    pooled = b.op("GlobalAveragePool", y)
    return b.model(
        {"x": (("batch", 3, "high", "wide"), "float32")}, {y: "float32", pooled: "float32"}
    )


def unet(enlarge: str = "ConvTranspose", **shape: Any) -> Any:
    """Two halvings of an image and back, each beside what it had before."""
    b = Builder(7)
    x, kept = "x", list[str]()
    for inputs, outputs in ((2, 8), (8, 16)):
        kept.append(b.op("Relu", b.op("Conv", x, b.noise(outputs, inputs, 3, 3), pads=[1] * 4)))
        x = b.op("MaxPool", kept[-1], kernel_shape=[2, 2], strides=[2, 2])
    for channels in (16, 8):
        if enlarge == "ConvTranspose":
            x = b.op(enlarge, x, b.noise(16, channels, 2, 2), strides=[2, 2])
        else:
            scales = b.constant(np.array([1, 1, 2, 2], np.float32))
            x = b.op("Resize", x, "", scales, mode=enlarge)
            x = b.op("Conv", x, b.noise(channels, 16, 1, 1))
        x = b.op("Concat", kept.pop(), x, axis=1)
        x = b.op("Relu", b.op("Conv", x, b.noise(16, 2 * channels, 3, 3), pads=[1] * 4))
    axes = {"n": "n", "h": "h", "w": "w", **shape}
    return b.model({"x": ((axes["n"], 2, axes["h"], axes["w"]), "float32")}, {x: "float32"})
