"""Padding that follows from sizes (`auto_pad` SAME_UPPER and SAME_LOWER), written as numbers.

By ONNX there are as many windows as strides begin within the input, and a dilated window reaches
from its first element to its last.  ONNX Runtime 1.31 pads dilated pools as if they were not,
refuses dilated convolutions, and where strides are longer than windows some of its pools begin
behind the first element; so do TVM's.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from hybridc.compiler.frontends.onnx_graph.misreadings import attributes
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.writer import domain_of

# Which input has the window's sizes, where the attribute `kernel_shape` is left out.
_OPERATORS = {
    **{"AveragePool": 0, "LpPool": 0, "MaxPool": 0},
    **{"Conv": 1, "ConvInteger": 1, "QLinearConv": 3},
}
_SAME = ("SAME_UPPER", "SAME_LOWER")


def write_out(nodes: Iterable[Proto], types: Mapping[str, Proto]) -> None:
    """Write it in place, wherever the types of values tell it."""
    import onnx

    for node in nodes:
        if (pads := _padding(node, types)) is not None:
            # There is nothing to round up: the last window ends where the padding does.
            left = ("auto_pad", "pads", "ceil_mode")
            kept = [item for item in node.attribute if item.name not in left]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("pads", pads)])


def are_misread(nodes: Iterable[Proto]) -> bool:
    """Whether ONNX Runtime would refuse some of it, or take it for another."""
    return any(_is_misread(attributes(node)) for node in nodes if _is_same(node))


def _is_misread(options: Mapping[str, Any]) -> bool:
    windows = options.get("kernel_shape") or [1]
    steps = options.get("strides") or [1]
    return any(step > 1 for step in options.get("dilations", ())) or max(steps) > min(windows)


def _is_same(node: Proto) -> bool:
    if node.op_type not in _OPERATORS or domain_of(node):
        return False
    return attributes(node).get("auto_pad") in _SAME


def _padding(node: Proto, types: Mapping[str, Proto]) -> list[int] | None:
    """The padding before each axis, then that behind each; None where it is not SAME or known."""
    if not _is_same(node):
        return None
    options = attributes(node)
    extents = _sizes(types, node.input[0])[2:]
    windows = options.get("kernel_shape") or _sizes(types, node.input[_OPERATORS[node.op_type]])[2:]
    strides, dilations = (
        options.get(name) or [1] * len(windows) for name in ("strides", "dilations")
    )
    if not len(extents) == len(windows) == len(strides) == len(dilations):
        return None
    totals: list[int] = []
    for extent, window, stride, dilation in zip(extents, windows, strides, dilations, strict=True):
        if window is None or (extent is None and stride > 1):
            return None
        reach = dilation * (window - 1) + 1
        rest = 1 if extent is None else extent - (-(-extent // stride) - 1) * stride
        totals.append(max(0, reach - rest))
    less, more = [total // 2 for total in totals], [total - total // 2 for total in totals]
    return [*less, *more] if options["auto_pad"] == "SAME_UPPER" else [*more, *less]


def _sizes(types: Mapping[str, Proto], name: str) -> Sequence[int | None]:
    """The sizes of a tensor, None for those that are not known; none where it has no type."""
    kind = types.get(name)
    if kind is None:
        return []
    dims = kind.tensor_type.shape.dim
    return [dim.dim_value if dim.HasField("dim_value") else None for dim in dims]
