"""Resize by scales that give no whole sizes, written so that ONNX Runtime computes what ONNX means.

Where corners are aligned, and where a part is cropped, ONNX counts with the size before it was
rounded (onnx/onnx#2462 and its test cases), ONNX Runtime with the size of the result.  A crop whose
end lies nearer by the ratio of both has the same places.
"""

import numpy as np

from hybridc.compiler.frontends.onnx_graph import writer
from hybridc.compiler.frontends.onnx_graph.element_types import graphs, walk
from hybridc.compiler.frontends.onnx_graph.model_file import Proto, copied
from hybridc.compiler.frontends.onnx_graph.writer import Writer

_ALIGN, _CROP = "align_corners", "tf_crop_and_resize"
_FLOAT = 1  # of ONNX's element types
_MOST_AXES = 8


def are_rounded(proto: Proto) -> bool:
    """Whether a model has such a Resize, or one of scales that nobody knows."""
    whole = _whole(proto)
    return any(_is_rounded(node, whole) for node in walk(proto.graph))


def write_out(proto: Proto) -> None:
    """Write each such Resize of a model otherwise, in place."""
    whole = _whole(proto)
    writer.replace(proto, "corners", lambda node: _is_rounded(node, whole), _cropped)


def _cropped(w: Writer) -> None:
    """The node with another region of interest."""
    x, roi, scales = (w.input(index) for index in range(3))
    sizes = w.emit("Cast", [w.emit("Shape", [x])], to=_FLOAT)
    if (axes := w.attribute("axes", None)) is not None:
        sizes = w.emit("Gather", [sizes, w.constant(np.array(axes, np.int64))])
    one = w.constant(np.float32(1))
    exact = w.emit("Mul", [sizes, scales])
    last, whole = (w.emit("Sub", [each, one]) for each in (exact, w.emit("Floor", [exact])))
    ratio = w.emit("Div", [whole, last])
    aligned = w.attribute("coordinate_transformation_mode", "") == _ALIGN
    # Of one element there is no distance to divide: the first corner, or the middle of the crop.
    alone = w.emit("Mul", [sizes, w.constant(np.float32(0))]) if aligned else one
    ratio = w.emit("Where", [w.emit("Equal", [exact, one]), alone, ratio])
    if aligned:
        start, end = alone, ratio
    else:
        pair = w.emit("Reshape", [w.emit("Cast", [roi], to=_FLOAT), w.constant(np.array([2, -1]))])
        start, stop = (w.emit("Gather", [pair, w.constant(np.int64(i))]) for i in range(2))
        end = w.emit("Add", [start, w.emit("Mul", [w.emit("Sub", [stop, start]), ratio])])
    region = w.emit("Concat", [start, end], axis=0)
    node = copied(w.node)
    node.input[1] = region
    for attribute in node.attribute:
        if attribute.name == "coordinate_transformation_mode":
            attribute.s = _CROP.encode()
    w.nodes.append(node)


def _is_rounded(node: Proto, whole: set[str]) -> bool:
    if node.op_type != "Resize" or node.domain not in ("", "ai.onnx") or len(node.input) < 3:
        return False
    modes = (a.s.decode() for a in node.attribute if a.name == "coordinate_transformation_mode")
    return next(modes, "") in (_ALIGN, _CROP) and node.input[2] not in {"", *whole}


def _whole(proto: Proto) -> set[str]:
    """Constants that are whole numbers, or nothing."""
    found: set[str] = set()
    for graph in graphs(proto.graph):
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        tensors |= {
            node.output[0]: item.t
            for node in graph.node
            for item in node.attribute
            if node.op_type == "Constant" and item.name == "value"
        }
        found |= {name for name, tensor in tensors.items() if _is_whole(tensor)}
    return found


def _is_whole(tensor: Proto) -> bool:
    import onnx

    if tensor.data_type != _FLOAT or len(tensor.dims) != 1 or tensor.dims[0] > _MOST_AXES:
        return False
    if tensor.data_location != tensor.DEFAULT:
        return False
    array = onnx.numpy_helper.to_array(tensor)
    return bool(np.all(array == np.floor(array)))
