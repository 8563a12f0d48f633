"""Types of an ONNX graph's values: which of them compiled code can hold, and which are opaque."""

from collections.abc import Iterable, Mapping, Sequence

from hybridc.compiler.delegation.runtime_values import ELEMENTS
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.versions import lower_numbers
from hybridc.compiler.frontends.onnx_import.folding import StaticGraph, static_shape
from hybridc.compiler.model import OpaqueSpec, TensorSpec

_NAMES = {"float32": "float", "float64": "double"}
_ELEMENT_NAMES = {_NAMES.get(name, name): number for name, number in ELEMENTS.items()}


def spec(name: str, kind: Proto) -> TensorSpec:
    """How compiled code holds a value of this ONNX type: as a tensor, or as a handle."""
    shape = static_shape(kind)
    dtype = _dtype(kind)
    if shape is not None and dtype in ELEMENTS:
        return TensorSpec(name, shape, dtype)
    return OpaqueSpec(name, type=describe(kind), sizes=_sizes(kind))


def _dtype(kind: Proto) -> str:
    import onnx

    if kind.WhichOneof("value") != "tensor_type":
        return ""
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
    except KeyError:
        return ""


def describe(kind: Proto) -> str:
    """An ONNX type as ONNX Runtime writes it: `seq(tensor(float))`."""
    import onnx

    which = kind.WhichOneof("value")
    if which == "tensor_type":
        if kind.tensor_type.elem_type == onnx.TensorProto.STRING:
            return "tensor(string)"
        dtype = _dtype(kind)
        return f"tensor({_NAMES.get(dtype, dtype) or 'unknown'})"
    if which == "sequence_type":
        return f"seq({describe(kind.sequence_type.elem_type)})"
    if which == "optional_type":
        return f"optional({describe(kind.optional_type.elem_type)})"
    if which == "map_type":
        key = onnx.TensorProto.DataType.Name(kind.map_type.key_type).lower()
        return f"map({key},{describe(kind.map_type.value_type)})"
    return which or "unknown"


def _sizes(kind: Proto) -> tuple[int | None, ...] | None:
    if kind.WhichOneof("value") == "optional_type":
        return _sizes(kind.optional_type.elem_type)
    if kind.WhichOneof("value") != "tensor_type" or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else None for dim in kind.tensor_type.shape.dim
    )


def complete(static: StaticGraph) -> Mapping[str, Proto]:
    """The types of all values, those that ONNX cannot infer as ONNX Runtime infers them.

    Operators of other domains are such.  What neither knows is left out.
    """
    graph = static.proto.graph
    names = [name for node in graph.node for name in node.output if name]
    types = dict(static.types)
    unknown = [name for name in names if not _is_known(types.get(name))]
    if unknown:
        types.update(_inferred(static.proto, unknown))
    return types


def _is_known(kind: Proto | None) -> bool:
    return kind is not None and (static_shape(kind) is not None or not _is_sized(kind))


def _is_sized(kind: Proto) -> bool:
    return bool(kind.WhichOneof("value") in (None, "tensor_type"))


def _inferred(proto: Proto, names: Iterable[str]) -> dict[str, Proto]:
    """Let ONNX Runtime infer types: those of a model's outputs are what its session tells.

    Nothing is known of a model that it does not take.
    """
    import onnx
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.graph.output[:]
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    lower_numbers(copy)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        session = onnxruntime.InferenceSession(
            copy.SerializeToString(),
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,  # else failures are written to stdout
        )
    except Exception:  # of many kinds; what it does not take is found and named later
        return {}
    found = ((port.name, _parsed(port.type, port.shape)) for port in session.get_outputs())
    return {name: kind for name, kind in found if kind is not None}


def _parsed(text: str, shape: Sequence[object]) -> Proto | None:
    """The type that ONNX Runtime writes so, if it is a tensor."""
    import onnx

    element = text.removeprefix("tensor(").removesuffix(")")
    number = _ELEMENT_NAMES.get(element)
    if number is None:
        return None
    if not shape:  # a scalar, or a tensor of unknown rank: it is written alike
        return onnx.helper.make_tensor_type_proto(number, None)
    sizes = [size if isinstance(size, int) else None for size in shape]
    return onnx.helper.make_tensor_type_proto(number, sizes)
