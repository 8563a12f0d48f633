"""Nodes of the first opsets as later ones write them."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Node, static
from hybridc.compiler.frontends.onnx_graph.first_opsets import ALIGNED, ALIGNED_BY_RULE
from hybridc.compiler.ir.rewrite import constant


def renewed(node: Node) -> Node:
    """The node, with inputs and attributes as in opset 7.

    Raises UnsupportedError for forms that nothing later has.
    """
    if node.opset < ALIGNED_BY_RULE and node.operator in ALIGNED:
        return _aligned(node)
    since, renew = _RENEWED.get(node.operator, (0, _as_it_is))
    return renew(node) if node.opset < since else node


def _as_it_is(node: Node) -> Node:
    return node


def _aligned(node: Node) -> Node:
    """With the second operand's last axes where `axis` puts them."""
    axis, (x, y) = node.get("axis"), node.inputs
    if axis is None or not node.get("broadcast", 0):
        return node
    rank, own = (len(each.ty.shape.values) for each in (x, y))
    behind = rank - (axis + rank if axis < 0 else axis) - own
    if own and not 0 <= behind <= rank - own:
        raise UnsupportedError(f"axis={axis} for operands of {rank} and {own} axes")
    if own and behind:
        y = node.scope.expand_dims(y, list(range(own, own + behind)))
    return replace(node, inputs=[x, y])


def _joined(node: Node) -> Node:
    return replace(node, attributes={"axis": 1, **node.attributes})


def _repeated(node: Node) -> Node:
    """Of times and an axis, each a number."""
    (times,), (axis,) = node.ints(1), node.ints(2)
    repeats = np.ones(len(static(node.inputs[0])), np.int64)
    repeats[axis] = times
    return replace(node, inputs=[node.inputs[0], constant(repeats, "int64")])


def _reshaped(node: Node) -> Node:
    sizes = np.array(node.get("shape", []), np.int64)
    return replace(node, inputs=[node.inputs[0], constant(sizes, "int64")])


def _cast(node: Node) -> Node:
    import onnx

    kind = node.get("to")
    number: Any = onnx.TensorProto.DataType.Value(kind) if isinstance(kind, str) else kind
    return replace(node, attributes={**node.attributes, "to": number})


_RENEWED: Mapping[str, tuple[int, Callable[[Node], Node]]] = MappingProxyType(
    {
        "Cast": (6, _cast),
        "Concat": (4, _joined),
        "Reshape": (5, _reshaped),
        "Tile": (6, _repeated),
    }
)
