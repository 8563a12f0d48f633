"""Version numbers of ONNX models, and what ONNX Runtime reads of them."""

from collections.abc import Iterable, Iterator
from types import MappingProxyType
from typing import Any

from hybridc.compiler.errors import ModelError

_STANDARD = ("", "ai.onnx")
_MICROSOFT = "com.microsoft"
# The newest that ONNX Runtime 1.31 reads; onnx 1.23 stamps files with IR 14 and opset 28.
_IR_VERSION = 13
_OPSET = 26
# In the versions 12 to 15 of these, onnx infers a type, but no shape; nothing else is different.
_SHAPED_SINCE = MappingProxyType({"GreaterOrEqual": 16, "LessOrEqual": 16})
# An axis, blocks and 16 bits, which are there since this opset, are in models of any opset where
# ONNX Runtime's and ONNX's quantised operators are written out to these.
_QUANTIZATION = frozenset({"DequantizeLinear", "QuantizeLinear"})
_OF_ANY_AXIS = frozenset({"axis", "block_size"})
_WIDE_SINCE = 21
# ONNX Runtime's optimiser writes it whatever the model's opset.
_OF_ANY_OPSET = frozenset({"LayerNormalization"})


def inferring_schema(node: Any, opset: int) -> Any:
    """The schema by which the shapes of a node's results are inferred.

    Raises onnx.defs.SchemaError where there is none.
    """
    import onnx

    since = _SHAPED_SINCE.get(node.op_type, 0) if node.domain in _STANDARD else 0
    if node.op_type in _QUANTIZATION:
        since = _WIDE_SINCE if any(a.name in _OF_ANY_AXIS for a in node.attribute) else 0
    return onnx.defs.get_schema(node.op_type, max(opset, since), node.domain)


def lower_numbers(proto: Any) -> None:
    """Lower the version numbers of an `onnx.ModelProto` to those that ONNX Runtime reads.

    That of the operators stays where one of them was another in the older version.
    """
    proto.ir_version = min(proto.ir_version, _IR_VERSION)
    used = operators_of(proto)

    def means_more(version: int) -> bool:
        return any(_signature(name, version) != _signature(name, _OPSET) for name in used)

    for opset in [*proto.opset_import, *(o for f in proto.functions for o in f.opset_import)]:
        standard, version = opset.domain in _STANDARD, opset.version
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


def name_microsoft(proto: Any) -> None:
    """Name ONNX Runtime's own operators among those of a model that has nodes of them, in place.

    It loads models that do not, and its tools write such.
    """
    import onnx

    named = any(opset.domain == _MICROSOFT for opset in proto.opset_import)
    if not named and any(node.domain == _MICROSOFT for node in _walk(proto.graph.node)):
        proto.opset_import.append(onnx.helper.make_opsetid(_MICROSOFT, 1))


def require_known(proto: Any, name: str) -> None:
    """Raise ModelError for an opset that is not known, or that lacks a standard operator.

    `name` is that of the model.  Operators that no opset has are left to the importer.
    """
    import onnx

    newest = int(onnx.defs.onnx_opset_version())
    local = {(function.domain, function.name) for function in proto.functions}
    for part, nodes in ((proto, proto.graph.node), *((f, f.node) for f in proto.functions)):
        opset = max((o.version for o in part.opset_import if o.domain in _STANDARD), default=newest)
        if not 1 <= opset <= newest:
            raise ModelError(f"{name}: opset {opset} is not known; the newest is {newest}")
        for node in _walk(nodes):
            operator = str(node.op_type) if node.domain in _STANDARD else ""
            later = onnx.defs.has(operator) and not onnx.defs.has(operator, opset)
            later = later and operator not in _OF_ANY_OPSET
            if later and (node.domain, operator) not in local:
                raise ModelError(f"{name}: opset {opset} has no operator {operator!r}")


def operators_of(proto: Any) -> set[str]:
    """The standard operators that a model uses, in subgraphs and functions too."""
    lists = [proto.graph.node, *(function.node for function in proto.functions)]
    nodes = (node for nodes in lists for node in _walk(nodes))
    return {node.op_type for node in nodes if node.domain in _STANDARD}


def _walk(nodes: Iterable[Any]) -> Iterator[Any]:
    """Nodes, in their subgraphs too."""
    for node in nodes:
        yield node
        for attribute in node.attribute:
            for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                yield from _walk(graph.node)
