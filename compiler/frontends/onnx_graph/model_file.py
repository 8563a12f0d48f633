"""Read an ONNX file that nobody vouches for, and set its big tensors apart from its graph."""

import math
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridc.compiler.errors import ModelError
from hybridc.compiler.model import Array

Proto = Any  # a message of onnx; the library ships no types for them

# Tensors up to this size stay in the graph, where shapes and axes are computed from them.
_SMALL_BYTES = 2**16
_SUB_BYTE = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}


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


def read(source: Path | Proto) -> OnnxFile:
    """Read and check a file or `onnx.ModelProto`; a proto that is given is left as it is.

    Raises ModelError where it is no valid ONNX model, or where external data is not a regular
    file inside the model's own directory.
    """
    import onnx

    if isinstance(source, Path):
        proto, name, directory = _parse(source), source.stem, source.parent
    else:
        proto, name, directory = onnx.ModelProto(), source.graph.name or "model", None
        proto.CopyFrom(source)
    if not proto.HasField("graph") or not proto.graph.output:
        raise ModelError(f"{name}: not an ONNX model (it holds no graph with outputs)")
    if proto.graph.sparse_initializer:
        raise ModelError(f"{name}: sparse initialisers are not supported")
    for tensor in _tensors(proto):
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            _load_external(tensor, directory)
    file = OnnxFile(name, proto, _take_weights(proto))
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


def _load_external(tensor: Proto, directory: Path | None) -> None:
    """Move a tensor's external data into the tensor, after every check."""
    import onnx

    where = f"tensor {tensor.name!r}"
    if directory is None:
        raise ModelError(f"{where} lies in another file; give the model's path, not its proto")
    entries = {entry.key: entry.value for entry in tensor.external_data}
    size = _bytes_of(tensor, where)
    if not entries.get("length", str(size)).isdigit() or not entries.get("offset", "0").isdigit():
        raise ModelError(f"{where}: external offset and length must be numbers")
    if (length := int(entries.get("length", size))) != size:
        raise ModelError(f"{where}: its shape takes {size} bytes, its external data has {length}")
    path = _contained(entries.get("location", ""), directory, where)
    tensor.raw_data = _read_range(path, int(entries.get("offset", 0)), size, where)
    tensor.ClearField("external_data")
    tensor.data_location = onnx.TensorProto.DEFAULT


def _bytes_of(tensor: Proto, where: str) -> int:
    import onnx

    kind = tensor.data_type
    if kind in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
        raise ModelError(f"{where}: external data must be numbers")
    if any(size < 0 for size in tensor.dims):
        raise ModelError(f"{where}: a dimension is negative")
    try:
        name = onnx.TensorProto.DataType.Name(kind)
        bits = _SUB_BYTE.get(name) or 8 * onnx.helper.tensor_dtype_to_np_dtype(kind).itemsize
    except (KeyError, ValueError):
        raise ModelError(f"{where}: unknown data type {kind}") from None
    return int(-(-math.prod(tensor.dims) * bits // 8))


def _contained(location: str, directory: Path, where: str) -> Path:
    """The real path of `location`, which must lie below `directory` by every reading of it."""
    relative = Path(location)
    if not location or "\0" in location or relative.is_absolute() or ".." in relative.parts:
        raise ModelError(f"{where}: external data {location!r} is not below the model's directory")
    root = os.path.realpath(directory)
    path = os.path.realpath(os.path.join(root, location))
    if os.path.commonpath([root, path]) != root:
        raise ModelError(f"{where}: external data {location!r} links out of the model's directory")
    return Path(path)


def _read_range(path: Path, offset: int, size: int, where: str) -> bytes:
    try:
        # The path is resolved, so a link found here was put there after the check.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ModelError(f"{where}: external data {path.name}: {error.strerror}") from None
    try:
        status = os.fstat(handle)
        # A second name of the same file could be a secret from elsewhere on the disk.
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise ModelError(f"{where}: external data {path.name} must be a file with no hard link")
        if offset + size > status.st_size:
            raise ModelError(
                f"{where}: external data {path.name} has {status.st_size} bytes, "
                f"{offset + size} are needed"
            )
        with os.fdopen(handle, "rb", closefd=False) as file:
            file.seek(offset)
            return file.read(size)
    finally:
        os.close(handle)


def _take_weights(proto: Proto) -> dict[str, Array]:
    """Turn big initialisers into graph inputs; drop initialisers from the inputs (old IR)."""
    import onnx

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
            inputs.append(
                onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, array.shape)
            )
        else:
            small.append(tensor)
    del graph.initializer[:]
    graph.initializer.extend(small)
    del graph.input[:]
    graph.input.extend(inputs)
    # Before IR 4 every initialiser had to be an input too, which they no longer are.
    proto.ir_version = max(proto.ir_version, 4)
    return weights


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
        del graph.node[:]
        graph.node.extend(kept)


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
