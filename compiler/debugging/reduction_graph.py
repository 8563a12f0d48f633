"""Smaller models made from a model: some of its nodes, a node left out of a chain, other sizes."""

from collections.abc import Iterator, Mapping, Sequence

from hybridc.compiler.frontends.onnx_graph.model_file import Proto, copied

Types = Mapping[str, Proto]  # the type of each value, by name


def types_of(model: Proto) -> Types:
    """The types of all values whose type is known: element type and all sizes or their names."""
    graph = model.graph
    values = [*graph.input, *graph.value_info, *graph.output]
    return {value.name: value.type for value in values if _known(value.type)}


def _known(kind: Proto) -> bool:
    tensor = kind.tensor_type
    return bool(
        kind.WhichOneof("value") == "tensor_type"
        and tensor.elem_type
        and tensor.HasField("shape")
        and all(dim.WhichOneof("value") for dim in tensor.shape.dim)
    )


def reads(node: Proto) -> set[str]:
    """The values that a node reads, those that its subgraphs take from outside among them."""
    found = {name for name in node.input if name}
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            inner = {value.name for value in [*graph.input, *graph.initializer]}
            taken = {value.name for value in graph.output}
            for body in graph.node:
                taken |= reads(body)
                inner |= set(body.output)
            found |= taken - inner
    return found


def restricted(model: Proto, chosen: Sequence[int], types: Types) -> Proto | None:
    """The model of some of its nodes; None if that is none, or not valid."""
    nodes = [model.graph.node[index] for index in chosen]
    return of_nodes(model, nodes, types)


def bypassed(model: Proto, index: int, types: Types) -> Iterator[Proto | None]:
    """The model without a node whose result is replaced by an operand of the same type."""
    node = model.graph.node[index]
    if len(node.output) != 1 or node.output[0] not in types:
        return
    result = node.output[0]
    for name in dict.fromkeys(node.input):
        if name in types and types[name] == types[result]:
            others = [copied(other) for other in model.graph.node if other is not node]
            for other in others:
                _rename(other, result, name)
            yield of_nodes(model, others, types)


def _rename(node: Proto, old: str, new: str) -> None:
    node.input[:] = [new if name == old else name for name in node.input]
    for attribute in node.attribute:
        for graph in [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]:
            for body in graph.node:
                _rename(body, old, new)
            for value in graph.output:
                value.name = new if value.name == old else value.name


def of_nodes(model: Proto, nodes: Sequence[Proto], types: Types) -> Proto | None:
    """A model of these nodes: what they miss is an input, what nobody reads is an output."""
    produced = {name for node in nodes for name in node.output if name}
    read = set[str]().union(*map(reads, nodes))
    asked = [value.name for value in model.graph.output if value.name in produced]
    outputs = asked + sorted(produced - read - set(asked))
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in read]
    held = {tensor.name for tensor in tensors}
    fed = [value.name for value in model.graph.input if value.name in read]
    inputs = fed + sorted(read - produced - held - set(fed))
    if not nodes or not {*inputs, *outputs} - held <= types.keys():
        return None
    smaller = copied(model)
    graph = smaller.graph
    for part in ("node", "initializer", "input", "output", "value_info", "quantization_annotation"):
        graph.ClearField(part)
    graph.node.extend(nodes)
    graph.initializer.extend(tensors)
    graph.input.extend(_value(name, types) for name in inputs if name in types)
    graph.output.extend(_value(name, types) for name in outputs)
    return _checked(smaller)


def sizes(model: Proto) -> set[int]:
    """The sizes of the inputs' axes, but for 0 and 1."""
    return {
        dim.dim_value
        for value in model.graph.input
        for dim in value.type.tensor_type.shape.dim
        if dim.dim_value > 1
    }


def resized(model: Proto, old: int, new: int) -> Proto | None:
    """The model with inputs that have another size wherever they had `old`; None if invalid."""
    smaller = copied(model)
    held = {tensor.name for tensor in smaller.graph.initializer}
    smaller.graph.ClearField("value_info")
    for value in smaller.graph.input:
        for dim in value.type.tensor_type.shape.dim if value.name not in held else []:
            dim.dim_value = new if dim.dim_value == old else dim.dim_value
    for value in smaller.graph.output:
        value.type.tensor_type.ClearField("shape")
    return _checked(smaller)


def _checked(model: Proto) -> Proto | None:
    """The model with its types inferred, or None if it is not valid or not fully known."""
    import onnx

    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        onnx.checker.check_model(inferred)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        if "No Op registered" not in str(error):
            return None
        inferred = model
    known = types_of(inferred)
    return inferred if all(value.name in known for value in inferred.graph.output) else None


def _value(name: str, types: Types) -> Proto:
    import onnx

    return onnx.helper.make_value_info(name, types[name])
