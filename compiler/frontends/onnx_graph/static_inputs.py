"""Inputs of an ONNX model that decide shapes, such as axes, sizes, paddings, and fixing them.

A compiled model has static shapes, so such an input has to be known when it is compiled.
Exporters write them as constants; hand-made graphs leave them open now and then.
"""

from collections.abc import Mapping
from types import MappingProxyType

from hybridc.compiler.errors import ModelError, hint
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.model import Array

# The inputs of each operator that its output's shape, or the loops that compute it, follow from.
_DECIDING: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "AffineGrid": (1,),
        "BlackmanWindow": (0,),
        "CenterCropPad": (1,),
        "Col2Im": (1, 2),
        "Compress": (1,),
        "ConstantOfShape": (0,),
        "CumProd": (1,),
        "CumSum": (1,),
        "DFT": (1, 2),
        "Dropout": (1, 2),
        "Expand": (1,),
        "HammingWindow": (0,),
        "HannWindow": (0,),
        "Loop": (0, 1),
        "MaxUnpool": (2,),
        "MelWeightMatrix": (0, 1, 2, 3, 4),
        "OneHot": (1,),
        "Pad": (1, 3),
        "Range": (0, 1, 2),
        "Reshape": (1,),
        "Resize": (1, 2, 3),
        "STFT": (1, 3),
        "Slice": (1, 2, 3, 4),
        "Split": (1,),
        "Squeeze": (1,),
        "Tile": (1,),
        "TopK": (1,),
        "Unsqueeze": (1,),
        "Upsample": (1,),
    }
)


def deciding(proto: Proto) -> frozenset[str]:
    """The graph inputs, without initialisers, that an operator reads where shapes follow."""
    inputs = {value.name for value in proto.graph.input}
    inputs -= {tensor.name for tensor in proto.graph.initializer}
    read = {
        name
        for node in proto.graph.node
        for index, name in enumerate(node.input)
        if node.domain in ("", "ai.onnx") and index in _positions(node)
    }
    return frozenset(inputs & read)


def fixed(proto: Proto, values: Mapping[str, Array]) -> Proto:
    """A copy of a model whose inputs of these names are constants instead.

    Raises ModelError where the model has no such input.
    """
    import onnx

    known = [value.name for value in proto.graph.input]
    for name in values:
        if name not in known:
            raise ModelError(f"no input is named {name!r}; {hint(name, known)}")
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    kept = [value for value in proto.graph.input if value.name not in values]
    del copy.graph.input[:]
    copy.graph.input.extend(kept)
    tensors = [onnx.numpy_helper.from_array(array, name) for name, array in values.items()]
    copy.graph.initializer.extend(tensors)
    return copy


def _positions(node: Proto) -> tuple[int, ...]:
    """The deciding inputs; every reduction has its axes as the second."""
    return (1,) if node.op_type.startswith("Reduce") else _DECIDING.get(node.op_type, ())
