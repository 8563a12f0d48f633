"""What TVM's ONNX importer takes without complaint, but computes wrongly."""

from typing import Any

from hybridc.compiler.frontends.onnx_graph.model_file import Proto


def misreading(node: Proto) -> str | None:
    """What in a node of ONNX's own domain comes out wrong, to complete "not supported with …"."""
    if node.op_type == "NonMaxSuppression":
        return "a number of boxes that depends on the data"
    return None


def better_expanded(node: Proto) -> bool:
    """Whether ONNX's own definition of the operator by others is imported rightly instead."""
    match node.op_type:
        case "Attention":  # taken for Microsoft's operator of that name
            return True
        case "RMSNormalization":  # right for the last axis alone
            return bool(attributes(node).get("axis", -1) != -1)
        case _:
            return False


def attributes(node: Proto) -> dict[str, Any]:
    """A node's attributes as Python values, text as `str`."""
    import onnx

    values = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in values.items()
    }
