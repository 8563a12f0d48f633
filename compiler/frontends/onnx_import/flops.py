"""Floating-point operations of an ONNX graph: convolutions and matrix products, as is usual."""

import math
from collections.abc import Callable
from typing import Any

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph.misreadings import attributes
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_import.folding import StaticGraph

FORMULA = (
    "a multiply-add counts 2; Conv: 2 x output elements x kernel elements x input channels / "
    "groups; ConvTranspose: 2 x input elements x kernel elements x output channels / groups; "
    "MatMul, Gemm: 2 x output elements x inner size; LSTM, GRU, RNN: 2 x steps x batch x weights; "
    "other operators count 0"
)
Shape = tuple[int, ...]
Sizes = Callable[[str], Shape]


def flops(static: StaticGraph) -> int:
    """Count by FORMULA; raises ModelError where a shape that it needs is not known."""

    def sizes(name: str) -> Shape:
        shape = static.shape(name)
        if shape is None:
            raise ModelError(f"the shape of {name!r} is not known")
        return shape

    counted = (node for node in static.proto.graph.node if node.op_type in _COUNTS)
    return sum(_COUNTS[node.op_type](node, sizes) for node in counted)


def _convolution(node: Proto, sizes: Sizes) -> int:
    # A weight is [output channels, input channels / groups, *kernel].
    weight = sizes(_weight_of(node))
    return 2 * math.prod(sizes(node.output[0])) * math.prod(weight[1:])


def _transposed_convolution(node: Proto, sizes: Sizes) -> int:
    # A weight is [input channels, output channels / groups, *kernel].
    return 2 * math.prod(sizes(node.input[0])) * math.prod(sizes(node.input[1])[1:])


def _matrix_product(node: Proto, sizes: Sizes) -> int:
    inner = sizes(node.input[0])[-1]
    return 2 * math.prod(sizes(node.output[0])) * inner


def _gemm(node: Proto, sizes: Sizes) -> int:
    inner = sizes(node.input[0])[0 if attributes(node).get("transA", 0) else 1]
    return 2 * math.prod(sizes(node.output[0])) * inner


def _recurrence(node: Proto, sizes: Sizes) -> int:
    # Each row of each step meets all weights: W [directions, gates x hidden, inputs] and R.
    steps_and_rows = math.prod(sizes(node.input[0])[:2])
    return 2 * steps_and_rows * sum(math.prod(sizes(weight)) for weight in node.input[1:3])


def _weight_of(node: Proto) -> Any:
    # The quantised operator lists scale and zero point between data and weight.
    return node.input[3 if node.op_type == "QLinearConv" else 1]


_COUNTS: dict[str, Callable[[Proto, Sizes], int]] = {
    "Conv": _convolution,
    "ConvInteger": _convolution,
    "ConvTranspose": _transposed_convolution,
    "GRU": _recurrence,
    "Gemm": _gemm,
    "LSTM": _recurrence,
    "MatMul": _matrix_product,
    "MatMulInteger": _matrix_product,
    "QLinearConv": _convolution,
    "QLinearMatMul": _matrix_product,
    "RNN": _recurrence,
}
