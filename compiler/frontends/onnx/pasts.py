"""Earlier keys and values, joined with those of this call."""

from collections.abc import Mapping
from types import MappingProxyType

from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.frontends.onnx_graph.microsoft_grouped import JOINED
from hybridc.compiler.ir.rewrite import shape
from hybridc.compiler.kernels.attention.joined_past import joined


def _joined(node: Node) -> Expr:
    past, new, begins = node.inputs
    kind, within = dtype(past), bool(node.get("within", 0))
    earlier, now = shape(past), shape(new)
    total = earlier[2] if within else earlier[2] + now[2]
    result = [now[0], now[1], total, now[3]]
    function = joined(earlier, now, within, kind)
    return node.scope.loops("joined_past", function, [past, new, begins], [(result, kind)])[0]


CONVERTERS: Mapping[str, Converter] = MappingProxyType({JOINED: _joined})
