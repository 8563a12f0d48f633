"""Write ONNX's operators on quantised tensors as dequantise, compute, quantise.

ONNX Runtime's own, of the domain com.microsoft, are among them.  The passes see one form
of quantised model then: that of the QDQ format.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from hybridc.compiler.frontends.onnx.integers import fits_bytes
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.writer import Place, Writer, domain_of, opset_of

Names = Sequence[str]
_IMAGE = 4  # axes


def written_out(proto: Proto) -> Proto:
    """The model with every operator of `_EXPANSIONS` written out.

    ConvInteger's result is exact where the convolution is one of integers, and else where it is
    below 2^24.  The model given is returned where it holds none of them.
    """
    import onnx

    if not any(_expansion(node) for node in proto.graph.node):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    kept: list[Proto] = []
    for index, node in enumerate(copy.graph.node):
        expand = _expansion(node)
        kept.extend([node] if expand is None else expand(_Writer(copy, node, index)))
    del copy.graph.node[:]
    copy.graph.node.extend(kept)
    return copy


def _expansion(node: Proto) -> "Callable[[_Writer], list[Proto]] | None":
    """What writes a node out, or None."""
    return _EXPANSIONS.get((domain_of(node), node.op_type))


class _Writer(Writer):
    """Makes the nodes that take the place of one on quantised tensors."""

    def __init__(self, model: Proto, node: Proto, index: int) -> None:
        super().__init__(Place(model.graph, node, f"{node.output[0]}/{index}", opset_of(model)))
        self.model = model

    def dequantize(self, data: str, scale: str, zero: str, axis: int) -> str:
        """Dequantise; the axis counts where the scale has one.

        Models of opsets before 13 get one too, which `versions.inferring_schema` allows.
        """
        inputs = [data, scale, zero] if zero else [data, scale]
        return self.emit("DequantizeLinear", inputs, axis=axis)

    def sizes(self, name: str) -> Sequence[int] | None:
        """The sizes of an initialiser, or of an input or a typed tensor; None if not known."""
        graph = self.model.graph
        sizes = [tensor.dims for tensor in graph.initializer if tensor.name == name]
        sizes += [
            [dim.dim_value for dim in value.type.tensor_type.shape.dim]
            for value in [*graph.input, *graph.value_info]
            if value.name == name
        ]
        return next(iter(sizes), None)

    def ones(self, like: str) -> str:
        """Scales of 1 of the shape that a zero point has; a number where that is not known."""
        return self.constant(np.ones(self.sizes(like) or (), np.float32))

    def like_node(self, operator: str, inputs: Names, without: Names = ()) -> str:
        """An operator with the attributes of the node that is replaced, but for some."""
        name = self.emit(operator, inputs)
        kept = (a for a in self.node.attribute if a.name not in without)
        self.nodes[-1].attribute.extend(kept)
        return name

    def channels_first(self, operator: str, inputs: Names, rank: int, output: str = "") -> str:
        """An operator with the node's attributes, as ONNX has it.

        `rank` is that of images whose channels come last, as do the result's; 0 for others.
        """
        if not rank:
            return self.like_node(operator, inputs, ["channels_last"])
        x, *others = inputs
        between = range(1, rank - 1)
        x = self.emit("Transpose", [x], perm=[0, rank - 1, *between])
        y = self.like_node(operator, [x, *others], ["channels_last"])
        return self.emit("Transpose", [y], output, perm=[0, *(a + 1 for a in between), 1])

    def operand(self, index: int) -> str:
        """Three successive inputs, data, scale and zero point, dequantised."""
        return self.dequantize(self.input(index), self.input(index + 1), self.input(index + 2), 0)

    def quantized(self, result: str, index: int, axis: int = 0) -> list[Proto]:
        """All nodes, the last of which quantises by the scale and zero point at `index`."""
        scale, zero = self.input(index), self.input(index + 1)
        inputs = [result, scale, zero] if zero else [result, scale]
        self.emit("QuantizeLinear", inputs, self.node.output[0], axis=axis)
        return self.nodes


def _qlinear_conv(writer: _Writer) -> list[Proto]:
    x = writer.dequantize(writer.input(0), writer.input(1), writer.input(2), 1)
    w = writer.dequantize(writer.input(3), writer.input(4), writer.input(5), 0)
    inputs = [x, w]
    if bias := writer.input(8):
        # Its scale is the product of the others', one for each output channel.
        scale = writer.emit("Mul", [writer.input(1), writer.input(4)])
        inputs.append(writer.dequantize(bias, scale, "", 0))
    rank = len(writer.sizes(writer.input(3)) or ()) or _IMAGE
    y = writer.channels_first("Conv", inputs, rank if writer.attribute("channels_last", 0) else 0)
    return writer.quantized(y, 6, 1)


def _qlinear_matmul(writer: _Writer) -> list[Proto]:
    a = writer.dequantize(writer.input(0), writer.input(1), writer.input(2), -2)
    b = writer.dequantize(writer.input(3), writer.input(4), writer.input(5), -1)
    return writer.quantized(writer.emit("MatMul", [a, b]), 6, -2)


def _conv_integer(writer: _Writer) -> list[Proto]:
    """Floats less their zero points, unless the convolution is one of bytes."""
    import onnx

    if _of_bytes(writer):
        return [writer.node]
    x, w = (
        writer.dequantize(writer.input(index), writer.ones(zero), zero, axis)
        for index, zero, axis in ((0, writer.input(2), 1), (1, writer.input(3), 0))
    )
    y = writer.like_node("Conv", [x, w])
    writer.emit("Cast", [y], writer.node.output[0], to=onnx.TensorProto.INT32)
    return writer.nodes


def _of_bytes(writer: _Writer) -> bool:
    """Whether a ConvInteger can be imported as it is; see its converter."""
    import onnx

    known = {tensor.name: tensor for tensor in writer.model.graph.initializer}
    names = [writer.input(1), *filter(None, [writer.input(3)])]
    automatic = writer.attribute("auto_pad", "NOTSET") not in ("NOTSET", "VALID")
    if automatic or not all(name in known for name in names):
        return False
    weights, *points = (onnx.numpy_helper.to_array(known[name]) for name in names)
    return weights.ndim == 4 and fits_bytes(weights, *points or [None]) is not None


def _elementwise(operator: str) -> Callable[[_Writer], list[Proto]]:
    """QLinearAdd and QLinearMul."""

    def expand(writer: _Writer) -> list[Proto]:
        operands = [writer.operand(0), writer.operand(3)]
        return writer.quantized(writer.emit(operator, operands), 6)

    return expand


def _unary(operator: str, *without: str) -> Callable[[_Writer], list[Proto]]:
    """An operator of one tensor, with its attributes but those that ONNX's has not."""

    def expand(writer: _Writer) -> list[Proto]:
        return writer.quantized(writer.like_node(operator, [writer.operand(0)], without), 3)

    return expand


def _pool(operator: str) -> Callable[[_Writer], list[Proto]]:
    """A pooling, channels last where the node says so; ONNX has them first."""

    def expand(writer: _Writer) -> list[Proto]:
        # Pooling of ONNX Runtime's is of images where channels come last.
        rank = _IMAGE if writer.attribute("channels_last", 0) else 0
        return writer.quantized(writer.channels_first(operator, [writer.operand(0)], rank), 3)

    return expand


def _max_pool(writer: _Writer) -> list[Proto]:
    """NhwcMaxPool: the largest of bytes, in images whose channels come last."""
    writer.channels_first("MaxPool", [writer.input(0)], _IMAGE, writer.node.output[0])
    return writer.nodes


def _quantization(writer: _Writer) -> list[Proto]:
    """ONNX Runtime's QuantizeLinear and its inverse: ONNX's with any type in any opset."""
    node, axis = writer.node, int(writer.attribute("axis", 1))
    writer.emit(node.op_type, list(node.input), node.output[0], axis=axis)
    return writer.nodes


def _qlinear_concat(writer: _Writer) -> list[Proto]:
    parts = [writer.operand(index) for index in range(2, len(writer.node.input), 3)]
    return writer.quantized(writer.like_node("Concat", parts), 0)


def _qlinear_softmax(writer: _Writer) -> list[Proto]:
    axis, opset = (int(writer.attribute(n, d)) for n, d in (("axis", -1), ("opset", 13)))
    x = writer.operand(0)
    if opset >= 13:
        return writer.quantized(writer.emit("Softmax", [x], axis=axis), 3)
    rows = writer.emit("Softmax", [writer.emit("Flatten", [x], axis=axis)], axis=-1)
    shape = writer.emit("Shape", [x])
    return writer.quantized(writer.emit("Reshape", [rows, shape]), 3)


def _qlinear_where(writer: _Writer) -> list[Proto]:
    chosen = writer.emit("Where", [writer.input(0), writer.operand(1), writer.operand(4)])
    return writer.quantized(chosen, 7)


def _qgemm(writer: _Writer) -> list[Proto]:
    """QGemm; its bias has the product of the others' scales, and a result without one is float."""
    columns = 0 if writer.attribute("transB", 0) else 1
    a = writer.operand(0)
    b = writer.dequantize(writer.input(3), writer.input(4), writer.input(5), columns)
    inputs = [a, b]
    if bias := writer.input(6):
        alpha = writer.constant(np.float32(writer.attribute("alpha", 1.0)))
        scale = writer.emit("Mul", [writer.input(1), writer.input(4)])
        inputs.append(writer.dequantize(bias, writer.emit("Mul", [scale, alpha]), "", -1))
    y = writer.like_node("Gemm", inputs)
    if writer.input(7):
        return writer.quantized(y, 7)
    writer.emit("Identity", [y], writer.node.output[0])
    return writer.nodes


_MICROSOFT = "com.microsoft"
_EXPANSIONS: Mapping[tuple[str, str], Callable[[_Writer], list[Proto]]] = MappingProxyType(
    {
        ("", "ConvInteger"): _conv_integer,
        ("", "QLinearConv"): _qlinear_conv,
        ("", "QLinearMatMul"): _qlinear_matmul,
        (_MICROSOFT, "DequantizeLinear"): _quantization,
        (_MICROSOFT, "NhwcMaxPool"): _max_pool,
        (_MICROSOFT, "QGemm"): _qgemm,
        (_MICROSOFT, "QLinearAdd"): _elementwise("Add"),
        (_MICROSOFT, "QLinearAveragePool"): _pool("AveragePool"),
        (_MICROSOFT, "QLinearConcat"): _qlinear_concat,
        (_MICROSOFT, "QLinearConv"): _qlinear_conv,
        (_MICROSOFT, "QLinearGlobalAveragePool"): _pool("GlobalAveragePool"),
        (_MICROSOFT, "QLinearLeakyRelu"): _unary("LeakyRelu"),
        (_MICROSOFT, "QLinearMul"): _elementwise("Mul"),
        (_MICROSOFT, "QLinearSigmoid"): _unary("Sigmoid"),
        (_MICROSOFT, "QLinearSoftmax"): _qlinear_softmax,
        (_MICROSOFT, "QLinearWhere"): _qlinear_where,
        (_MICROSOFT, "QuantizeLinear"): _quantization,
    }
)
