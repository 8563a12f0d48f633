"""Arithmetic of 16 bits as a GPU does it: in float32, with products on tensor cores."""

import tvm
from tvm import relax

from hybridc.compiler.ir.rewrite import Expr, Graph, constant, operator, with_attributes

_NARROW, _WIDE = ("float16", "bfloat16"), "float32"
PRODUCTS = frozenset({"matmul", "nn.conv1d", "nn.conv2d", "nn.conv3d"})
# What computes each element for itself; choosing and moving elements loses nothing anyway.
_ELEMENTWISE = frozenset(
    {
        *("abs", "add", "ceil", "clip", "cos", "cosh", "divide", "erf", "exp", "floor"),
        *("floor_divide", "floor_mod", "log", "log_add_exp", "maximum", "minimum", "mod"),
        *("multiply", "negative", "nn.gelu", "nn.gelu_tanh", "nn.leakyrelu", "nn.log_softmax"),
        *("nn.prelu", "nn.relu", "nn.selu", "nn.silu", "nn.softplus", "power"),
        *("round", "rsqrt", "sigmoid", "sign", "sin", "sinh", "sqrt", "square", "subtract"),
        *("tan", "tanh", "trunc"),
    }
)


def in_float32(value: Expr, graph: Graph) -> Expr | None:
    """A product or elementwise operator of 16 bits with float32 within; None of anything else.

    A GPU's tensor cores multiply 16-bit types exactly and add up in float32; what is elementwise
    is rounded once, when it is stored.
    """
    del graph
    name, narrow = operator(value), str(getattr(value.ty, "dtype", ""))
    if narrow not in _NARROW:
        return None
    if name in PRODUCTS and all(str(operand.ty.dtype) == narrow for operand in value.args):
        wide = (
            relax.op.matmul(*value.args, out_dtype=_WIDE)
            if name == "matmul"
            else with_attributes(value, list(value.args), out_dtype=_WIDE)
        )
    elif name in _ELEMENTWISE:
        operands = [_widened(operand) for operand in value.args]
        wide = tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)
    else:
        return None
    return relax.op.astype(wide, narrow)


def _widened(operand: Expr) -> Expr:
    if str(getattr(operand.ty, "dtype", "")) not in _NARROW:
        return operand
    if isinstance(operand, tvm.ir.GenericConst) and (array := operand.value.numpy()).size == 1:
        return constant(array, _WIDE)
    return relax.op.astype(operand, _WIDE)
