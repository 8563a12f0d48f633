"""Single nodes of an ONNX graph computed on constants, by ONNX's reference."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.model import Array


def evaluate(
    node: Proto, feed: Mapping[str, Proto], proto: Proto, types: Mapping[str, Proto]
) -> list[Proto] | None:
    """Compute one node on constants by ONNX's reference; None where that does not give tensors."""
    import onnx
    import onnx.reference

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
            results = onnx.reference.ReferenceEvaluator(model).run(None, arrays)
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
    """An array as a constant of this type; None where it is not one."""
    import onnx

    if not isinstance(value, np.ndarray | np.generic):
        return None
    array: Array = np.asarray(value)
    if array.dtype.kind in "OSU":
        return None
    made = onnx.numpy_helper.from_array(array, name)
    # The reference sometimes widens; a constant of another type would change what follows.
    expected = kind.tensor_type.elem_type if kind is not None else made.data_type
    return made if made.data_type == expected else None
