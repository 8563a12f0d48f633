"""GridSample of many channels, by rows of them."""

from collections.abc import Mapping
from types import MappingProxyType

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends import sampled_images
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, dtype
from hybridc.compiler.ir.rewrite import are_known

_LINEAR = ("linear", "bilinear")


def _grid_sample(node: Node) -> Expr:
    """Linear in images of float32, whose batch and whose grid may be open.

    Other forms are left to TVM, which divides by a length of 0.
    """
    x, grid, s = node.inputs[0], node.inputs[1], node.scope
    known = are_known(node.shape()[1:])
    mode, padding = node.get("mode", "linear"), node.get("padding_mode", "zeros")
    if padding == "reflection" and node.get("align_corners", 0) and 1 in node.shape()[2:]:
        raise UnsupportedError("a reflection between the ends of one element")
    takes = mode in _LINEAR and padding in ("zeros", "border") and dtype(x) == "float32"
    if not known or not takes or len(node.shape()) != 4 or dtype(grid) != "float32":
        return None
    shapes = (node.shape(), node.shape(1))
    _, channels, height, width = node.shape()
    if channels < sampled_images.LEAST or 0 in (*node.shape(), *node.shape(1)):
        return None
    aligned = bool(node.get("align_corners", 0))
    form = sampled_images.Grid((height, width), aligned, padding == "border", spreads_nan=False)
    return sampled_images.by_rows(s, x, grid, shapes, form)


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"GridSample": _grid_sample})
