"""Version numbers of ONNX models, and what ONNX Runtime reads of them."""

from typing import Any

# The newest that ONNX Runtime 1.31 reads; onnx 1.23 stamps files with IR 14 and opset 28.
_IR_VERSION = 13
_OPSET = 26


def lower_numbers(proto: Any) -> None:
    """Lower the version numbers of an `onnx.ModelProto` to those that ONNX Runtime reads.

    That of the operators stays where one of them was another in the older version.
    """
    proto.ir_version = min(proto.ir_version, _IR_VERSION)
    used = operators_of(proto)

    def means_more(version: int) -> bool:
        return any(_signature(name, version) != _signature(name, _OPSET) for name in used)

    for opset in [*proto.opset_import, *(o for f in proto.functions for o in f.opset_import)]:
        standard, version = opset.domain in ("", "ai.onnx"), opset.version
        if standard and version > _OPSET and not means_more(version):
            opset.version = _OPSET


def _signature(operator: str, opset: int) -> Any:
    """What an operator takes and gives, but for the types that it allows."""
    import onnx

    try:
        schema = onnx.defs.get_schema(operator, opset, "")
    except onnx.defs.SchemaError:
        return None
    options = {name: str(option.default_value) for name, option in schema.attributes.items()}
    return options, *([port.name for port in side] for side in (schema.inputs, schema.outputs))


def operators_of(proto: Any) -> set[str]:
    """The standard operators that a model uses, in subgraphs and functions too."""
    used: set[str] = set()
    lists = [proto.graph.node, *(function.node for function in proto.functions)]
    while lists:
        for node in lists.pop():
            used.update([node.op_type] if node.domain in ("", "ai.onnx") else [])
            for attribute in node.attribute:
                lists += [graph.node for graph in (attribute.g, *attribute.graphs)]
    return used
