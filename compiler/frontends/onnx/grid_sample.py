"""GridSample of images, by kernels of our own."""

from collections.abc import Mapping
from types import MappingProxyType

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends import sampled_images
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.ir.rewrite import are_known

_FORMER = {"bilinear": "linear", "bicubic": "cubic"}  # names of opset 16


def _grid_sample(node: Node) -> Expr:
    """Of images of float32, whose batch and whose grid may be open.

    Other forms are left to TVM, which divides by a length of 0.
    """
    x, grid, s = node.inputs[0], node.inputs[1], node.scope
    known = are_known(node.shape()[1:])
    mode, padding = str(node.get("mode", "linear")), node.get("padding_mode", "zeros")
    mode = _FORMER.get(mode, mode)
    aligned = bool(node.get("align_corners", 0))
    if padding == "reflection" and aligned and 1 in node.shape()[2:]:
        raise UnsupportedError("a reflection between the ends of one element")
    floats = dtype(x) == dtype(grid) == "float32"
    if not known or not floats or len(node.shape()) != 4:
        return None
    if 0 in (*node.shape(), *node.shape(1)):
        return None
    _, _, height, width = node.shape()
    form = sampled_images.Grid((height, width), aligned, padding, spreads_nan=False, mode=mode)
    return sampled_images.sampled(s, x, grid, (node.shape(), node.shape(1)), form)


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"GridSample": _grid_sample})
