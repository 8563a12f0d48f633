"""Compute depthwise convolutions channels first where nothing around them is channels last."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    are_known,
    constant,
    operator,
    rewrite,
    shape,
    updated,
)
from hybridc.compiler.kernels.convolutions import depthwise_planes
from hybridc.compiler.kernels.products.contractions import Conv2d
from hybridc.passes._surroundings import is_alone

_LAYOUT = "NCHW", "OIHW"
# Columns of windows of one row, of which rows share nothing, up to which transposes cost more.
_WIDEST_ROW = 11


@dataclass(frozen=True)
class DepthwisePlanes(Pass):
    """Compute depthwise convolutions channels first where nothing around them is channels last.

    With channels last, such a convolution would need two transposes, each of which takes about as
    long as the convolution.  Near another kind of convolution or a transpose, the layout follows
    that: the transposes are needed anyway, or cancel out.  Weights must be fp32 constants.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Replace the convolutions by kernels on planes, which join the module."""
        builder = relax.BlockBuilder(module)

        def rule(value: Expr, graph: Graph) -> Expr | None:
            if not _is_depthwise(value) or graph.constant(value.args[1]) is None:
                return None
            alone = is_alone(value, graph, _is_depthwise)
            return _on_planes(value, graph, builder) if alone else None

        made = rewrite(module, rule)
        functions = builder.get().functions_items()
        kernels = {var: func for var, func in functions if isinstance(func, tirx.PrimFunc)}
        return module if made is module else updated(made, kernels)


def _is_depthwise(value: Expr) -> bool:
    """Whether a call is a depthwise convolution channels first, of known size, in fp32."""
    if operator(value) != "nn.conv2d":
        return False
    data, weight = value.args
    known = are_known(shape(data)) and are_known(shape(weight))
    types = {str(tensor.ty.dtype) for tensor in (data, weight, value)}
    if not known or types != {"float32"} or 0 in shape(value):
        return False
    if shape(weight)[2] == 1 and shape(weight)[3] > _WIDEST_ROW:
        return False
    layouts = value.attrs.data_layout, value.attrs.kernel_layout
    channels, groups = shape(data)[1], int(value.attrs.groups)
    # One channel that many results are made of is any convolution's.
    alone = groups > 1 or shape(weight)[0] == 1
    return layouts == _LAYOUT and groups == channels and alone


def _on_planes(call: Expr, graph: Graph, builder: Any) -> Expr:
    """The kernel in place of a convolution."""
    attrs, data = call.attrs, call.args[0]
    weight = graph.constant(call.args[1])
    assert weight is not None, "only constants are replaced"
    taps = np.ascontiguousarray(weight[:, 0])
    top, left, bottom, right = (int(width) for width in attrs.padding)
    conv = Conv2d(
        strides=(int(attrs.strides[0]), int(attrs.strides[1])),
        padding=(top, left, bottom, right),
        dilation=(int(attrs.dilation[0]), int(attrs.dilation[1])),
        groups=int(attrs.groups),
        inputs=1,
    )
    kernel = depthwise_planes.conv2d(shape(data), taps.shape, conv, "float32")
    var = builder.add_func(kernel, "depthwise_planes")
    return relax.call_tir(var, [data, constant(taps, "float32")], call.ty)
