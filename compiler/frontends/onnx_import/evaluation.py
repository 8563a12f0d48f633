"""Single nodes of an ONNX graph computed on constants, by ONNX's reference where it is right."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph import first_opsets
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.model import Array

# The reference of onnx 1.23 computes other numbers than ONNX's text says: the bias of grouped
# transposed convolutions, `auto_pad`, dilations and ceil_mode of poolings, softmaxes before opset
# 13, sequence lengths of recurrent layers, epsilon before opset 14, norms of degree 1, and many
# modes of resampling.  What computes with floats like these stays for the compiler's own folding.
_MISCOMPUTED = frozenset(
    {
        *("Attention", "BatchNormalization", "GroupNormalization", "InstanceNormalization"),
        *("LRN", "LayerNormalization", "LpNormalization", "MeanVarianceNormalization"),
        *("Hardmax", "LogSoftmax", "RMSNormalization", "Softmax"),
        *("Conv", "ConvInteger", "ConvTranspose", "DeformConv", "QLinearConv", "QLinearMatMul"),
        *("AveragePool", "GlobalAveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool"),
        *("MaxPool", "MaxRoiPool", "MaxUnpool", "RoiAlign"),
        *("GRU", "LSTM", "RNN"),
        *("GridSample", "Resize", "Upsample"),
    }
)


def evaluate(
    node: Proto, feed: Mapping[str, Proto], proto: Proto, types: Mapping[str, Proto]
) -> list[Proto] | None:
    """Compute one node on constants; None where the reference gives no tensors, or wrong ones."""
    import onnx
    import onnx.reference

    if node.op_type in _MISCOMPUTED:
        return None
    graph = onnx.helper.make_graph(
        [node],
        "fold",
        [onnx.helper.make_value_info(name, types[name]) for name in feed],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    model = onnx.helper.make_model(graph, opset_imports=proto.opset_import)
    arrays = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in feed.items()}
    try:
        with np.errstate(all="ignore"):
            own = first_opsets.reference_operators(proto)
            results = onnx.reference.ReferenceEvaluator(model, new_ops=own).run(None, arrays)
    except Exception:  # the reference raises anything; a node that stays is imported as it is
        return None
    named = zip((name for name in node.output if name), results, strict=True)
    tensors = [as_tensor(name, value, types.get(name)) for name, value in named]
    return None if None in tensors else tensors


def zeros(kind: Any, shape: Any) -> Array | None:
    """Zeros of an ONNX type; None where numpy lacks it."""
    import onnx

    try:
        return np.zeros(shape, onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type))
    except KeyError:
        return None


def as_tensor(name: str, value: Any, kind: Proto | None) -> Proto | None:
    """An array as a constant of this type and shape; None where it is not one."""
    import onnx

    if not isinstance(value, np.ndarray | np.generic):
        return None
    array: Array = np.asarray(value)
    if array.dtype.kind in "OSU":
        return None
    made = onnx.numpy_helper.from_array(array, name)
    if kind is None:
        return made
    # The reference sometimes widens; a constant of another type would change what follows.
    same = made.data_type == kind.tensor_type.elem_type and _has_shape(array, kind)
    return made if same else None


def _has_shape(array: Array, kind: Proto) -> bool:
    """Whether an array has the sizes that a type tells."""
    if not kind.tensor_type.HasField("shape"):
        return True
    dims = kind.tensor_type.shape.dim
    return len(dims) == array.ndim and all(
        not dim.HasField("dim_value") or dim.dim_value == size
        for dim, size in zip(dims, array.shape, strict=True)
    )
