"""Operators that choose by comparing numbers, and those numbers off by some roundings.

A library's logistic function or a sum in another order is off by as much; where two scores are
nearly equal, either may be the larger.
"""

from hybridc.compiler.frontends.onnx_graph.model_file import Proto

_CHOOSING = frozenset({"ArgMax", "ArgMin", "TopK"})
# Both scores of a pair may be off by four roundings, as after a handful of operators.
_OFF = 4 * 2.0**-24


def unsettle(proto: Proto, seed: int) -> None:
    """Multiply what a graph chooses by with 1, give or take some roundings, which `seed` draws.

    Only numbers of fp32, and not in the bodies of loops and branches.
    """
    import onnx

    kinds = _kinds(proto)
    nodes = list(proto.graph.node)
    del proto.graph.node[:]
    for number, node in enumerate(nodes):
        if node.op_type in _CHOOSING and kinds.get(node.input[0]) == onnx.TensorProto.FLOAT:
            proto.graph.node.extend(_unsettled(node, f"hybridc_unsettled_{number}", seed + number))
        proto.graph.node.append(node)


def _unsettled(node: Proto, name: str, seed: int) -> list[Proto]:
    """Nodes that make another operand for this one, which reads it from here on."""
    import onnx

    noise = onnx.helper.make_node(
        "RandomUniformLike",
        [node.input[0]],
        [f"{name}_noise"],
        low=1 - _OFF,
        high=1 + _OFF,
        seed=float(seed),
        dtype=onnx.TensorProto.FLOAT,
    )
    product = onnx.helper.make_node("Mul", [node.input[0], f"{name}_noise"], [name])
    node.input[0] = name
    return [noise, product]


def _kinds(proto: Proto) -> dict[str, int]:
    """The element types of a graph's values, as far as ONNX infers them."""
    import onnx

    try:
        graph = onnx.shape_inference.infer_shapes(proto).graph
    except Exception:  # of operators that ONNX does not know; the model is left as it is
        return {}
    values = [*graph.input, *graph.value_info, *graph.output]
    return {value.name: value.type.tensor_type.elem_type for value in values}
