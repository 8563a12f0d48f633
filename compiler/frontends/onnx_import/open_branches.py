"""The branch of an `If` that sizes choose beside open ones, as exporters write a squeeze."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph import branches
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_import.sizes import Sizes
from hybridc.compiler.ir.rewrite import constant
from hybridc.compiler.model import Array

Expr = Any  # tvm.ir.Expr


@dataclass(frozen=True)
class Chosen:
    """What stands in the place of an `If`: its nodes, and the constants that they read."""

    nodes: Sequence[Proto]
    constants: Mapping[str, Expr]


def chosen_branch(sizes: Sizes, node: Proto) -> Chosen | None:
    """The branch of an `If` whose condition follows from sizes; None for any other node."""
    import onnx

    if node.op_type != "If" or node.input[0] not in sizes.known:
        return None
    condition = sizes.known[node.input[0]]
    if condition.open or condition.values.size != 1:
        return None
    told = onnx.numpy_helper.from_array(np.array(bool(condition.values.item())), node.input[0])
    scene = branches.Scene({node.input[0]: told}, lambda _: None, 0)
    written = branches.written_out(node, scene)
    if written is None:
        return None
    constants = {each.name: onnx.numpy_helper.to_array(each) for each in written.constants}
    constants |= {each.output[0]: _value(each) for each in written.nodes if _is_constant(each)}
    nodes = [each for each in written.nodes if not _is_constant(each)]
    made = {name: constant(array, str(array.dtype)) for name, array in constants.items()}
    return Chosen(nodes, made)


def _is_constant(node: Proto) -> bool:
    return bool(node.op_type == "Constant" and node.attribute[0].name != "sparse_value")


def _value(node: Proto) -> Array:
    import onnx

    (item,) = node.attribute
    value = onnx.helper.get_attribute_value(item)
    if item.name == "value":
        array: Array = onnx.numpy_helper.to_array(value)
        return array
    return np.array(value, np.float32 if "float" in item.name else np.int64)
