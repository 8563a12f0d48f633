"""Read an ONNX file that nobody vouches for, and set its big tensors apart from its graph."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph import external_data, node_order, versions
from hybridc.compiler.model import Array

Proto = Any  # a message of onnx; the library ships no types for them

# Tensors up to this size stay in the graph, where shapes and axes are computed from them.
_SMALL_BYTES = 2**16


@dataclass(frozen=True)
class OnnxFile:
    """A model without its bulk, and the bulk.

    `proto` lists each of `weights` as a graph input, so it is a valid model that is cheap to
    check, copy and serialise; `weights` holds the arrays by name.
    """

    name: str
    proto: Proto
    weights: dict[str, Array]

    def inputs(self) -> list[Proto]:
        """The graph inputs that the caller feeds, in the order of the graph."""
        return [value for value in self.proto.graph.input if value.name not in self.weights]


def read(source: Path | Proto, *, bulk: bool = True) -> OnnxFile:
    """Read and check a file or `onnx.ModelProto`; a proto that is given is left as it is.

    Without `bulk`, big tensors that lie in other files are checked, but are not among the weights.
    Raises ModelError where it is no valid ONNX model, or where external data is not a regular
    file inside the model's own directory.
    """
    import onnx

    if isinstance(source, Path):
        proto, name, path = _parse(source), source.stem, source
    else:
        proto, name, path = onnx.ModelProto(), source.graph.name or "model", None
        proto.CopyFrom(source)
    if not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(f"{name}: not an ONNX model (it holds no graph with outputs)")
    if proto.graph.sparse_initializer:
        raise ModelError(f"{name}: sparse initialisers are not supported")
    outside = _take_outside(proto.graph, path, bulk)
    for tensor in filter(_lies_outside, _tensors(proto)):
        external_data.find(tensor, path).embed(tensor)
    node_order.put_in_order(proto.graph)
    versions.name_microsoft(proto)
    file = OnnxFile(name, proto, {**outside, **_take_weights(proto)})
    _check(file)
    return file


def _parse(path: Path) -> Proto:
    import onnx

    try:
        return onnx.ModelProto.FromString(path.read_bytes())
    except OSError as error:
        raise ModelError(f"{path}: {error.strerror or error}") from None
    except Exception:  # a DecodeError of protobuf, whose Python package ships no types
        raise ModelError(f"{path}: not an ONNX model, or a truncated one") from None


def _check(file: OnnxFile) -> None:
    import onnx

    checked = onnx.ModelProto()
    checked.CopyFrom(file.proto)
    for value in [*checked.graph.input, *checked.graph.output]:
        # The checker wants a shape field, though a tensor of unknown rank has none.
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.shape.SetInParent()
    try:
        onnx.checker.check_model(checked)
    except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
        # Operators that ONNX does not define are named later, together and with their nodes.
        if "No Op registered" not in str(error):
            line = " ".join(str(error).split())
            raise ModelError(f"{file.name}: not a valid ONNX model: {line[:300]}") from None
    versions.require_known(file.proto, file.name)


def _tensors(proto: Proto) -> Iterator[Proto]:
    """Every tensor of the model: initialisers and attributes, in subgraphs and functions too."""
    yield from _graph_tensors(proto.graph)
    for function in proto.functions:
        yield from _node_tensors(function.node)


def _graph_tensors(graph: Proto) -> Iterator[Proto]:
    yield from graph.initializer
    yield from _node_tensors(graph.node)


def _node_tensors(nodes: Any) -> Iterator[Proto]:
    for attribute in (attribute for node in nodes for attribute in node.attribute):
        yield from [attribute.t] if attribute.HasField("t") else []
        yield from attribute.tensors
        for graph in [attribute.g, *attribute.graphs]:
            yield from _graph_tensors(graph)


def _take_outside(graph: Proto, model: Path | None, bulk: bool) -> dict[str, Array]:
    """Turn big initialisers that lie in other files into graph inputs.

    They are read straight into arrays: within a message they would be in memory twice. Without
    `bulk` they are checked, but not read.
    """
    weights: dict[str, Array] = {}
    moved: list[Proto] = []
    kept: list[Proto] = []
    for tensor in graph.initializer:
        data = external_data.find(tensor, model) if _lies_outside(tensor) else None
        if data is None or data.dtype is None or data.size <= _SMALL_BYTES:
            kept.append(tensor)
            continue
        moved.append(tensor)
        if bulk:
            weights[tensor.name] = data.array(tuple(tensor.dims))
    if moved:
        names = {tensor.name for tensor in moved}
        inputs = [value for value in graph.input if value.name not in names]
        _replace(graph.input, [*inputs, *map(_input_of, moved)])
        _replace(graph.initializer, kept)
    return weights


def _take_weights(proto: Proto) -> dict[str, Array]:
    """Turn big initialisers into graph inputs; drop initialisers from the inputs (old IR)."""
    graph = proto.graph
    _hoist_constants(graph)
    initialised = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in initialised]
    weights: dict[str, Array] = {}
    small: list[Proto] = []
    for tensor in graph.initializer:
        array = _array(tensor)
        if array.nbytes > _SMALL_BYTES and array.dtype.kind not in "OSU":
            weights[tensor.name] = array
            inputs.append(_input_of(tensor))
        else:
            small.append(tensor)
    _replace(graph.initializer, small)
    _replace(graph.input, inputs)
    # Before IR 4 every initialiser had to be an input too, which they no longer are.
    proto.ir_version = max(proto.ir_version, 4)
    return weights


def _lies_outside(tensor: Proto) -> bool:
    import onnx

    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def _input_of(tensor: Proto) -> Proto:
    import onnx

    return onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))


def _replace(repeated: Any, messages: Sequence[Proto]) -> None:
    del repeated[:]
    repeated.extend(messages)


def _hoist_constants(graph: Proto) -> None:
    """Turn `Constant` nodes that hold a tensor into initialisers."""
    kept: list[Proto] = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
        else:
            kept.append(node)
    if len(kept) < len(graph.node):
        _replace(graph.node, kept)


def _array(tensor: Proto) -> Array:
    import onnx

    try:
        array: Array = onnx.numpy_helper.to_array(tensor)
    except Exception as error:  # to_array raises many kinds on malformed tensors
        line = " ".join(str(error).split())
        raise ModelError(f"tensor {tensor.name!r} is malformed: {line[:200]}") from None
    return array


def copied(message: Proto) -> Proto:
    """A copy of a message of any kind."""
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
