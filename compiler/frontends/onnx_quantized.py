"""Write ONNX's operators on quantised tensors as dequantise, compute, quantise.

The passes see one form of quantised model then: that of the QDQ format.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_file import Proto

Names = Sequence[str]


def written_out(proto: Proto) -> Proto:
    """The model with every QLinearConv, QLinearMatMul and ConvInteger written out.

    ConvInteger's result is exact where the convolution is one of integers, and else where it is
    below 2^24.  The model given is returned where it holds none of them.
    """
    import onnx

    if not any(node.op_type in _EXPANSIONS for node in _standard(proto)):
        return proto
    made = onnx.ModelProto()
    made.CopyFrom(proto)
    kept: list[Proto] = []
    for index, node in enumerate(made.graph.node):
        expand = _EXPANSIONS.get(node.op_type) if node.domain in ("", "ai.onnx") else None
        kept.extend([node] if expand is None else expand(_Writer(made, node, index)))
    del made.graph.node[:]
    made.graph.node.extend(kept)
    return made


def _standard(proto: Proto) -> Iterator[Proto]:
    return (node for node in proto.graph.node if node.domain in ("", "ai.onnx"))


class _Writer:
    """Makes the nodes that take the place of one."""

    def __init__(self, model: Proto, node: Proto, index: int) -> None:
        self.model, self.node = model, node
        self.prefix = f"{node.output[0]}/{index}"
        self.made: list[Proto] = []

    def input(self, index: int) -> str:
        """The name of an input, "" where it is left out."""
        return str(self.node.input[index]) if len(self.node.input) > index else ""

    def emit(self, operator: str, inputs: Names, output: str = "", **attributes: Any) -> str:
        """A node, and the name of its output."""
        import onnx

        name = output or f"{self.prefix}/{len(self.made)}"
        self.made.append(onnx.helper.make_node(operator, inputs, [name], **attributes))
        return name

    def constant(self, value: Any) -> str:
        """The name of a new initialiser."""
        import onnx

        name = f"{self.prefix}/constant{len(self.made)}"
        self.model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def dequantize(self, data: str, scale: str, zero: str, axis: int) -> str:
        """Dequantise; the axis counts where the scale has one."""
        inputs = [data, scale, zero] if zero else [data, scale]
        return self.emit("DequantizeLinear", inputs, axis=axis)

    def like_node(self, operator: str, inputs: Names, output: str = "") -> str:
        """An operator with the attributes of the node that is replaced."""
        name = self.emit(operator, inputs, output)
        self.made[-1].attribute.extend(self.node.attribute)
        return name


def _qlinear_conv(writer: _Writer) -> list[Proto]:
    x = writer.dequantize(writer.input(0), writer.input(1), writer.input(2), 1)
    w = writer.dequantize(writer.input(3), writer.input(4), writer.input(5), 0)
    inputs = [x, w]
    if bias := writer.input(8):
        # Its scale is the product of the others', one for each output channel.
        scale = writer.emit("Mul", [writer.input(1), writer.input(4)])
        inputs.append(writer.dequantize(bias, scale, "", 0))
    y = writer.like_node("Conv", inputs)
    return _quantized(writer, y, 1)


def _qlinear_matmul(writer: _Writer) -> list[Proto]:
    a = writer.dequantize(writer.input(0), writer.input(1), writer.input(2), -2)
    b = writer.dequantize(writer.input(3), writer.input(4), writer.input(5), -1)
    return _quantized(writer, writer.emit("MatMul", [a, b]), -2)


def _quantized(writer: _Writer, result: str, axis: int) -> list[Proto]:
    inputs = [result, writer.input(6), writer.input(7)]
    writer.emit("QuantizeLinear", inputs, writer.node.output[0], axis=axis)
    return writer.made


def _conv_integer(writer: _Writer) -> list[Proto]:
    import onnx

    one = writer.constant(np.float32(1))
    x = writer.dequantize(writer.input(0), one, writer.input(2), 1)
    w = writer.dequantize(writer.input(1), one, writer.input(3), 0)
    y = writer.like_node("Conv", [x, w])
    writer.emit("Cast", [y], writer.node.output[0], to=onnx.TensorProto.INT32)
    return writer.made


_EXPANSIONS: Mapping[str, Callable[[_Writer], list[Proto]]] = MappingProxyType(
    {
        "ConvInteger": _conv_integer,
        "QLinearConv": _qlinear_conv,
        "QLinearMatMul": _qlinear_matmul,
    }
)
