"""Write operators with the body that ONNX itself defines for them.

The inliner of onnx 1.23 gives up where an input in the middle is left out, and drops attributes
that stand at their default; here both are as the standard has them.
"""

from collections.abc import Collection, Mapping
from typing import Any

from hybridc.compiler.frontends.onnx_graph import microsoft
from hybridc.compiler.frontends.onnx_graph.branches import renamed
from hybridc.compiler.frontends.onnx_graph.element_types import walk
from hybridc.compiler.frontends.onnx_graph.model_file import Proto, copied
from hybridc.compiler.frontends.onnx_graph.writer import domain_of, opset_of

Types = Mapping[str, Proto]
Opsets = Mapping[str, int]  # the version of each domain's operators that a model uses
Operator = tuple[str, str]  # domain and name
# TVM's table of operators ignores domains; these of its entries are Microsoft's.
MICROSOFT = frozenset({"AllClassNMS", "MatMulInteger16"})


def inlined(proto: Proto, operators: Collection[Operator], opsets: Opsets) -> Proto:
    """A copy of a model in which the nodes of these operators are written out, once.

    Within subgraphs too.  A node whose body cannot be made, for want of a type, stays.
    """
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    _expand_graph(copy.graph, operators, opsets, _types(copy.graph))
    return copy


def leave_out_shadowed(proto: Proto) -> None:
    """Leave out a model's functions that have the names of known operators, in place.

    ONNX leaves it to runtimes which of the two a node calls; in ONNX Runtime it is the operator.
    """
    import onnx

    opset = opset_of(proto)

    def is_operator(function: Proto) -> bool:
        domain = domain_of(function)
        if domain == "com.microsoft":
            return function.name in MICROSOFT or (domain, function.name) in microsoft.OPERATORS
        return domain == "" and onnx.defs.has(function.name, opset, domain)

    kept = [copied(each) for each in proto.functions if not is_operator(each)]
    if len(kept) < len(proto.functions):
        del proto.functions[:]
        proto.functions.extend(kept)


def with_defaults(proto: Proto) -> Proto:
    """A model whose calls of its own functions name the attributes that have a default there.

    Onnx's inliner leaves out what a call does not name.
    """
    import onnx

    known = {(f.domain, f.name, f.overload): f.attribute_proto for f in proto.functions}
    if not any(known.values()):
        return proto
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for node in (node for part in (copy.graph, *copy.functions) for node in walk(part)):
        present = {attribute.name for attribute in node.attribute}
        defaults = known.get((node.domain, node.op_type, node.overload), ())
        node.attribute.extend(each for each in defaults if each.name not in present)
    return copy


def called(node: Proto) -> Operator:
    """The operator of a node."""
    return domain_of(node), str(node.op_type)


def has_body(node: Proto, opsets: Opsets) -> bool:
    """Whether ONNX defines the operator by others."""
    import onnx

    try:
        schema = _schema(node, opsets)
    except onnx.defs.SchemaError:
        return False
    return bool(schema.has_function or schema.has_context_dependent_function)


def _schema(node: Proto, opsets: Opsets) -> Any:
    import onnx

    domain = domain_of(node)
    return onnx.defs.get_schema(node.op_type, opsets.get(domain, 1), domain)


def _types(graph: Proto) -> dict[str, Proto]:
    import onnx

    values = [*graph.input, *graph.value_info, *graph.output]
    found = {value.name: value.type for value in values}
    for tensor in graph.initializer:
        found[tensor.name] = onnx.helper.make_tensor_type_proto(tensor.data_type, tensor.dims)
    return found


def _expand_graph(
    graph: Proto, operators: Collection[Operator], opsets: Opsets, types: Types
) -> None:
    nodes: list[Proto] = []
    for node in graph.node:
        for attribute in node.attribute:
            for inner in [attribute.g] if attribute.HasField("g") else attribute.graphs:
                _expand_graph(inner, operators, opsets, {**types, **_types(inner)})
        body = _body(node, opsets, types) if called(node) in operators else None
        nodes.extend([node] if body is None else _written(node, body, opsets))
    kept = [copied(node) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)


def _body(node: Proto, opsets: Opsets, types: Types) -> Proto | None:
    """The function of a node: its newest that the model's opset reaches."""
    import onnx

    schema, opset = _schema(node, opsets), opsets.get(domain_of(node), 1)
    if schema.has_function:
        fitting = [version for version in schema.function_opset_versions if version <= opset]
        content = schema.get_function_with_opset_version(max(fitting)) if fitting else b""
    elif any(name and name not in types for name in node.input):
        return None
    else:
        versions = schema.context_dependent_function_opset_versions
        fitting = [version for version in versions if version <= opset]
        kinds = [types[name] if name else onnx.TypeProto() for name in node.input]
        content = schema.get_context_dependent_function_with_opset_version(
            max(fitting, default=opset),
            _with_defaults(node, schema).SerializeToString(),
            [kind.SerializeToString() for kind in kinds],
        )
    if not content:
        return None
    body = onnx.FunctionProto()
    body.ParseFromString(content)
    return body


def _with_defaults(node: Proto, schema: Any) -> Any:
    copy = copied(node)
    copy.attribute.extend(_defaults(node, schema))
    return copy


def _defaults(node: Proto, schema: Any) -> list[Proto]:
    """The attributes that a node leaves at their default."""
    present = {attribute.name for attribute in node.attribute}
    return [
        option.default_value
        for name, option in schema.attributes.items()
        if name not in present and option.default_value.name
    ]


def _written(node: Proto, body: Proto, opsets: Opsets) -> list[Proto]:
    """The nodes of a function's body with the names and attributes of its caller."""
    schema = _schema(node, opsets)
    prefix = next(name for name in node.output if name)
    inner = {name for each in body.node for name in each.output if name}
    names = {name: f"{prefix}/{name}" for name in inner}
    operands = [*node.input, *[""] * (len(body.input) - len(node.input))]
    names |= dict(zip(body.input, operands, strict=False))
    names |= {name: out for name, out in zip(body.output, node.output, strict=False) if out}
    values = {attribute.name: attribute for attribute in _with_defaults(node, schema).attribute}
    nodes = [renamed(each, names) for each in body.node]
    for each in nodes:
        _bind(each, values)
    return nodes


def _bind(node: Proto, values: Mapping[str, Proto]) -> None:
    """Put the caller's attributes where a body refers to them; one that is nowhere is left out."""
    kept: list[Proto] = []
    for attribute in node.attribute:
        for graph in [attribute.g] if attribute.HasField("g") else attribute.graphs:
            for inner in graph.node:
                _bind(inner, values)
        if not attribute.ref_attr_name:
            kept.append(copied(attribute))
        elif attribute.ref_attr_name in values:
            kept.append(copied(values[attribute.ref_attr_name]))
            kept[-1].name = attribute.name
    del node.attribute[:]
    node.attribute.extend(kept)
