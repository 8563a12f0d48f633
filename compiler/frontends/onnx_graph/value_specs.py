"""What an ONNX file declares of its inputs and outputs, as specs."""

from hybridc.compiler.dims import Shape
from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.model import TensorSpec


def input_spec(value: Proto, shape: Shape) -> TensorSpec:
    """An input of a shape that is known, with its declared type."""
    return TensorSpec(value.name, shape, dtype_of(value))


def dtype_of(value: Proto) -> str:
    """The element type of an ONNX input or output, as numpy and ml_dtypes spell it."""
    import onnx

    kind = value.type.tensor_type.elem_type
    if kind == onnx.TensorProto.STRING:
        raise ModelError(f"input {value.name!r} holds strings, which are not supported")
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(kind))
    except KeyError:
        raise ModelError(f"tensor {value.name!r} has an unknown element type {kind}") from None
