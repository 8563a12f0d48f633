"""Pools whose number of windows is rounded up (`ceil_mode`), written as more padding at the end.

A window begins within the image or the padding before it, and ends within the padding or at most a
stride less one behind it.  So there are as many windows as with the padding `min(end + stride - 1,
reach - 1)` and without rounding, where `reach` is from the first element of a window to its last.
Where strides are longer than what a window reaches, ONNX's inference of shapes (1.23) counts one
that begins behind the image, and TVM cannot express the number for an open size.
"""

from collections.abc import Mapping
from typing import Any

from hybridc.compiler.frontends.onnx_graph.element_types import walk
from hybridc.compiler.frontends.onnx_graph.misreadings import attributes
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.writer import domain_of

_POOLS = frozenset({"AveragePool", "LpPool", "MaxPool"})
_PLAIN = ("NOTSET", "VALID")


def write_out(proto: Proto) -> None:
    """Write it in place, in subgraphs too; averages that count their padding are left."""
    import onnx

    for node in walk(proto.graph):
        if (pads := _padding(node)) is not None:
            left = ("auto_pad", "pads", "ceil_mode", "count_include_pad")
            kept = [item for item in node.attribute if item.name not in left]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("pads", pads)])


def are_miscounted(proto: Proto) -> bool:
    """Whether ONNX's inference of shapes counts a window that begins behind the image."""
    return any(_is_miscounted(node) for node in walk(proto.graph))


def _is_miscounted(node: Proto) -> bool:
    if not _rounds_up(node):
        return False
    _, ends, strides, reaches = _windows(attributes(node))
    return any(e + s > r for e, s, r in zip(ends, strides, reaches, strict=True))


def _padding(node: Proto) -> list[int] | None:
    """The padding with which as many windows fit in; None where it is not written so."""
    if not _rounds_up(node):
        return None
    options = attributes(node)
    begins, ends, strides, reaches = _windows(options)
    if options.get("count_include_pad", 0) and any(begins + ends):
        return None
    return [*begins, *map(behind, ends, strides, reaches)]


def behind(padding: int, stride: int, reach: int) -> int:
    """The padding behind an axis with which as many windows fit in without rounding."""
    return min(padding + stride, reach) - 1


def _rounds_up(node: Proto) -> bool:
    if node.op_type not in _POOLS or domain_of(node):
        return False
    options = attributes(node)
    return bool(options.get("ceil_mode", 0)) and options.get("auto_pad", "NOTSET") in _PLAIN


def _windows(options: Mapping[str, Any]) -> tuple[list[int], list[int], list[int], list[int]]:
    """Of each axis the padding before and behind it, the stride, and what a window reaches."""
    windows = list(options["kernel_shape"])
    count = len(windows)
    strides, dilations = (list(options.get(n) or [1] * count) for n in ("strides", "dilations"))
    padded = options.get("auto_pad", "NOTSET") == "NOTSET"
    pads = list((padded and options.get("pads")) or [0] * 2 * count)
    reaches = [
        dilation * (window - 1) + 1 for window, dilation in zip(windows, dilations, strict=True)
    ]
    return pads[:count], pads[count:], strides, reaches
