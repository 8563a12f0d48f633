"""Lift 1-D convolutions to 2-D ones, over images of one row."""

from dataclasses import dataclass

import tvm
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Expr, Graph, operator, rewrite, shape, with_attributes

_UNARY = frozenset(
    {
        "clip",
        "erf",
        "exp",
        "negative",
        "nn.gelu",
        "nn.gelu_tanh",
        "nn.leakyrelu",
        "nn.relu",
        "nn.relu6",
        "nn.silu",
        "sigmoid",
        "tanh",
    }
)
_BINARY = frozenset({"add", "divide", "maximum", "minimum", "multiply", "subtract"})
_ROW = 2  # the axis that images have and signals lack
_SIGNAL = 3  # the axes of a signal


@dataclass(frozen=True)
class LiftConv1d(Pass):
    """Lift 1-D convolutions to 2-D ones, over images of one row.

    Everything for 2-D convolutions, from their layout to their schedules, then serves both, and
    likewise for transposed convolutions.  Elementwise operators and quantisation after a
    convolution are lifted too, so that they stay its epilogue.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the convolutions in the layout of ONNX and PyTorch, NCW."""
        return rewrite(module, _lift)


def _lift(value: Expr, graph: Graph) -> Expr | None:
    match operator(value):
        case "nn.conv1d" | "nn.conv1d_transpose":
            return _image(value)
        case "expand_dims":
            return _still_image(value, graph)
        case name if name in _UNARY | _BINARY:
            return _elementwise(value, graph)
        case "quantize" | "dequantize":
            return _quantised(value, graph)
        case _:
            return None


def _image(value: Expr) -> Expr | None:
    transposed = operator(value) == "nn.conv1d_transpose"
    attrs = value.attrs
    if (attrs.data_layout, attrs.kernel_layout) != ("NCW", "IOW" if transposed else "OIW"):
        return None
    left, right = (int(width) for width in attrs.padding)
    convolve, more = relax.op.nn.conv2d, {}
    if transposed:
        convolve = relax.op.nn.conv2d_transpose
        more = {"output_padding": (0, int(attrs.output_padding[0]))}
    convolved = convolve(
        *(relax.op.expand_dims(operand, _ROW) for operand in value.args),
        strides=(1, int(attrs.strides[0])),
        padding=(0, left, 0, right),
        dilation=(1, int(attrs.dilation[0])),
        groups=int(attrs.groups),
        out_dtype=attrs.out_dtype,
        **more,
    )
    return relax.op.squeeze(convolved, _ROW)


def _still_image(value: Expr, graph: Graph) -> Expr | None:
    """The image that a signal was before, where it becomes one again."""
    image = _image_of(value.args[0], graph)
    return image if image is not None and shape(image) == shape(value) else None


def _elementwise(value: Expr, graph: Graph) -> Expr | None:
    """The same operator on the image of the signal; other operands broadcast as before."""
    images = [_image_of(operand, graph) for operand in value.args]
    # An operand of more axes would put others before those of the signal.
    if all(image is None for image in images) or len(shape(value)) != _SIGNAL:
        return None
    operands = [
        _with_row(old) if new is None else new for new, old in zip(images, value.args, strict=True)
    ]
    lifted = tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)
    return relax.op.squeeze(lifted, _ROW)


def _quantised(value: Expr, graph: Graph) -> Expr | None:
    """The same conversion of the image of the signal, along the same axis."""
    image = _image_of(value.args[0], graph)
    if image is None:
        return None
    axis = int(value.attrs.axis) % value.ty.ndim
    operands = [image, *value.args[1:]]
    return relax.op.squeeze(with_attributes(value, operands, axis=axis + (axis >= _ROW)), _ROW)


def _image_of(operand: Expr, graph: Graph) -> Expr | None:
    """The image of one row behind a signal, or None if it is another tensor."""
    squeezed = graph.call(operand, "squeeze")
    image = None if squeezed is None else squeezed.args[0]
    if squeezed is None or len(shape(image)) != 4 or squeezed.attrs.axis is None:
        return None
    return image if [int(axis) for axis in squeezed.attrs.axis] == [_ROW] else None


def _with_row(operand: Expr) -> Expr:
    """An operand of a signal as one of an image: its last axis stays, the others move ahead."""
    rank = operand.ty.ndim if isinstance(operand.ty, relax.TensorType) else 0
    return relax.op.expand_dims(operand, rank - 1) if rank > 1 else operand
