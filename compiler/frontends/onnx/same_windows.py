"""Windows with `auto_pad` SAME_* over open sizes: the input is framed as each call's sizes ask for.

What is known before is written out as numbers (`onnx_graph/same_padding.py`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tvm import te, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Expr, Node, dtype
from hybridc.compiler.ir.rewrite import are_known

# What stands around the input.  Averages do not count what does, and are not among these.
_FILLS: Mapping[str, float] = {"Conv": 0.0, "MaxPool": -math.inf}
# Operators of windows.  An image smaller than a window has no result, and ONNX Runtime refuses it.
OF_WINDOWS = frozenset({"AveragePool", "Conv", "ConvInteger", "LpPool", "MaxPool", "QLinearConv"})


def framed(node: Node) -> Node:
    """The node without automatic padding, where that follows from sizes that only calls know.

    Raises UnsupportedError for operators for which that cannot be done.
    """
    mode = node.get("auto_pad", "NOTSET")
    if node.operator not in OF_WINDOWS or not mode.startswith("SAME"):
        return node
    if are_known(node.shape()[2:]):
        return node
    if node.operator not in _FILLS or node.named(1) or dtype(node.inputs[0]) != "float32":
        raise UnsupportedError(f"auto_pad={mode}, strides and open sizes")
    windows = node.get("kernel_shape") or node.shape(1)[2:]
    strides, dilations = (node.get(name) or [1] * len(windows) for name in ("strides", "dilations"))
    reaches = [
        dilation * (window - 1) + 1 for window, dilation in zip(windows, dilations, strict=True)
    ]
    x = _frame(node, reaches, strides, upper=mode == "SAME_UPPER")
    attributes = {**node.attributes, "auto_pad": b"NOTSET", "pads": (0,) * 2 * len(windows)}
    return replace(node, inputs=[x, *node.inputs[1:]], attributes=attributes)


def _frame(node: Node, reaches: Sequence[int], strides: Sequence[int], *, upper: bool) -> Expr:
    """The input from the begin of the first window to the end of the last, `_FILLS` around it."""
    fill = tirx.const(_FILLS[node.operator], "float32")

    def kernel(a: Expr) -> Expr:
        sizes, starts = list(a.shape[:2]), list[Any]()
        for extent, reach, stride in zip(a.shape[2:], reaches, strides, strict=True):
            whole = (tirx.floordiv(extent + stride - 1, stride) - 1) * stride + reach
            around = tirx.max(whole - extent, 0)
            starts.append(tirx.floordiv(around if upper else around + 1, 2))
            sizes.append(whole)

        def element(*i: Any) -> Any:
            places = [at - start for at, start in zip(i[2:], starts, strict=True)]
            inside = [
                tirx.all(place >= 0, place < extent)
                for place, extent in zip(places, a.shape[2:], strict=True)
            ]
            return tirx.if_then_else(tirx.all(*inside), a(*i[:2], *places), fill)

        return te.compute(sizes, element, name="framed")

    return node.scope.te(kernel, node.inputs[0])
