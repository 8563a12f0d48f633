"""Rows reduced by runs, which loops of embedding bags become."""

from collections.abc import Mapping
from types import MappingProxyType

from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.frontends.onnx_graph.bags import OPERATOR
from hybridc.compiler.kernels.rows.runs import Runs, reduced


def _reduce(node: Node) -> Expr:
    (rows, width), (count,) = node.shape(), node.shape(1)
    kind, options = dtype(node.inputs[0]), node.get
    runs = Runs(rows, width, count, options("mode"), bool(options("blank")), options("last"))
    ends = [node.scope.as_type(each, "int64") for each in node.inputs[1:]]
    function = reduced(runs, kind)
    return node.scope.loops("runs", function, [node.inputs[0], *ends], [((count, width), kind)])[0]


CONVERTERS: Mapping[str, Converter] = MappingProxyType({OPERATOR: _reduce})
