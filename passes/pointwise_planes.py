"""Compute a 1x1 convolution as a product with its planes where nothing around it is turned."""

from dataclasses import dataclass
from math import prod

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    are_known,
    constant,
    operator,
    rewrite,
    shape,
)
from hybridc.compiler.kernels.products.packing import round_up
from hybridc.compiler.target import Target
from hybridc.passes._surroundings import is_alone

_LAYOUT = "NCHW", "OIHW"
# Cycles of an element that is transposed, and of one that is packed for the product.  64 to 64
# channels at 56x56 take 257 us with two transposes and 154 without (Emerald Rapids).
_TURNED, _PACKED = 1.0, 0.4
# What is computed of each element alone, and may be computed before the planes are images again.
_UNARY = ("nn.relu", "sigmoid", "tanh")


@dataclass(frozen=True)
class PointwisePlanes(Pass):
    """Compute a 1x1 convolution as a product with its planes where nothing around it is turned.

    With channels last, it would need two transposes.  Other convolutions near, or a transpose, need
    or undo these, and so do pixels that fill no vectors.  Weights must be fp32 constants.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Write the convolutions as products, with what is added to their results."""

        def rule(value: Expr, graph: Graph) -> Expr | None:
            if not _is_pointwise(value, graph) or not _pays(value, context.target):
                return _sunk(value, graph)
            alone = is_alone(value, graph, value.same_as)
            return _product(value, graph) if alone else None

        return rewrite(module, rule)


def _is_pointwise(value: Expr, graph: Graph) -> bool:
    """Whether a call is a 1x1 convolution of whole images of known size, in fp32."""
    if operator(value) != "nn.conv2d" or graph.constant(value.args[1]) is None:
        return False
    data, weight = value.args
    if not are_known(shape(data)) or {str(t.ty.dtype) for t in (data, weight, value)} != {
        "float32"
    }:
        return False
    attrs = value.attrs
    plain = int(attrs.groups) == 1 and [*map(int, attrs.strides)] == [1, 1]
    plain = plain and not any(map(int, attrs.padding)) and 0 not in shape(value)
    return (
        plain
        and (attrs.data_layout, attrs.kernel_layout) == _LAYOUT
        and [*map(int, shape(weight)[2:])] == [1, 1]
    )


def _pays(value: Expr, target: Target) -> bool:
    """Whether transposes take longer than packing and what is multiplied in vain."""
    results, inputs = (int(size) for size in shape(value.args[1])[:2])
    pixels, lanes = prod(map(int, shape(value)[2:])), target.lanes()
    at_once = lanes * target.machine.fma_per_cycle
    planes = inputs * results * round_up(pixels, lanes) / at_once + _PACKED * inputs * pixels
    turned = inputs * round_up(results, lanes) * pixels / at_once
    return planes <= turned + _TURNED * (inputs + results) * pixels


def _product(value: Expr, graph: Graph) -> Expr:
    """The convolution as `weight[O, C] * x[N, C, H * W]`."""
    data, made = value.args[0], shape(value)
    weight = graph.constant(value.args[1])
    assert weight is not None, "only constants are replaced"
    matrix = constant(np.ascontiguousarray(weight[:, :, 0, 0]), "float32")
    planes = relax.op.reshape(data, [*shape(data)[:2], prod(map(int, made[2:]))])
    return relax.op.reshape(relax.op.matmul(matrix, planes), made)


def _sunk(value: Expr, graph: Graph) -> Expr | None:
    """What is done with a product's images done with its planes, so that the product ends in it."""
    name = operator(value)
    if name not in (*_UNARY, "add"):
        return None
    images = graph.call(value.args[0], "reshape")
    if images is None or not graph.only_use(value.args[0]) or not _of_product(images, graph):
        return None
    planes = images.args[0]
    if name in _UNARY:
        return relax.op.reshape(
            tvm.ir.Call(value.op, [planes], value.attrs, value.ty_args), shape(value)
        )
    bias = graph.constant(value.args[1])
    if bias is None or bias.shape != (1, shape(value)[1], 1, 1) or shape(value) != shape(images):
        return None
    column = constant(np.ascontiguousarray(bias[0, :, :, 0]), "float32")
    return relax.op.reshape(relax.op.add(planes, column), shape(value))


def _of_product(images: Expr, graph: Graph) -> bool:
    """Whether images are a product's planes, or what was computed of each element of these."""
    planes = images.args[0]
    if len(shape(images)) != 4 or len(shape(planes)) != 3:
        return False
    if [*shape(images)[:2]] != [*shape(planes)[:2]] or str(images.ty.dtype) != "float32":
        return False
    made = graph.value(planes)
    while operator(made) in (*_UNARY, "add"):
        made = graph.value(made.args[0])
    return operator(made) == "matmul" and graph.constant(made.args[0]) is not None
