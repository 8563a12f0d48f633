"""Use a wider type for what the code generator cannot do in a narrow one."""

from dataclasses import dataclass

import tvm
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Expr, Graph, operator, rewrite
from hybridc.compiler.kernels.images import resampling
from hybridc.passes import _wide_arithmetic

# Their result has a type of its own, whatever that of the operands.
_FIXED = frozenset(
    {
        "argsort",
        "argmax",
        "argmin",
        "equal",
        "greater",
        "greater_equal",
        "isfinite",
        "isinf",
        "isnan",
        "less",
        "less_equal",
        "not_equal",
    }
)
# TVM looks for these among the bits of all floats but bfloat16.
_OF_KINDS = frozenset({"isfinite", "isinf", "isnan"})
# Vectors of single bits have no arithmetic, and compare as if they were floats.
_OF_BITS = _FIXED | {"add", "max", "maximum", "min", "minimum", "multiply", "prod", "sum"}
# Functions that LLVM has for float32, but not for shorter floats.
_OF_HALVES = frozenset({"acos", "acosh", "asin", "asinh", "atan", "atanh"})
# Sums of many terms lose in bfloat16 what is less than a 256th of them; TVM's sorts read its bits
# as other numbers, and some operators it has not at all.
_OF_SUMS = frozenset(
    {
        "cumprod",
        "cumsum",
        "image.resize2d",
        "mean",
        "nn.adaptive_avg_pool2d",
        "nn.avg_pool1d",
        "nn.avg_pool2d",
        "nn.avg_pool3d",
        "nn.conv1d",
        "nn.conv1d_transpose",
        "nn.conv2d",
        "nn.conv2d_transpose",
        "nn.conv3d",
        "nn.group_norm",
        "nn.instance_norm",
        "nn.layer_norm",
        "nn.log_softmax",
        "nn.rms_norm",
        "nn.softmax",
        "prod",
        "sort",
        "std",
        "sum",
        "topk",
        "variance",
    }
)
# These of float16 keep its bits: choosing among numbers loses nothing.
_CHOICES = frozenset({"sort", "topk"})
_OF_HALF_SUMS = (_OF_SUMS - _CHOICES) | {"matmul"}
_NAMES = _OF_BITS | _OF_HALVES | _OF_KINDS | _OF_SUMS | {"argsort", "matmul", "power"}


@dataclass(frozen=True)
class WidenTypes(Pass):
    """Use a wider type for what the code generator cannot do in a narrow one.

    Arithmetic on booleans is done on integers, powers of integers in float64 as in ONNX Runtime,
    and rare functions of float16 in float32.  So are sums, norms, softmax and averages of bfloat16
    and float16, and products of float16: TVM would round each partial sum to 8 or 11 bits.  The
    result keeps its type.  On a GPU, products keep their operands of 16 bits, which tensor cores
    multiply, and add up in float32; what is elementwise in 16 bits is computed in float32.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Put casts around the operators concerned."""
        return rewrite(module, _widen if context.target.gpu is None else _widen_on_gpu)


def _widen_on_gpu(value: Expr, graph: Graph) -> Expr | None:
    wide = _wide_arithmetic.in_float32(value, graph)
    # Products that add up in float32 are what its rules match.
    adds_up = operator(value) in _wide_arithmetic.PRODUCTS and str(value.ty.dtype) == "float32"
    return wide if wide is not None or adds_up else _widen(value, graph)


def _adds_up_within(value: Expr) -> bool:
    """Whether this is an image of float16 whose kernel sums, or chooses, in float32 by itself."""
    return (
        operator(value) == "image.resize2d"
        and str(value.args[0].ty.dtype) == str(value.ty.dtype) == "float16"
        and resampling.resize_taps(value) is not None
    )


def _widen(value: Expr, graph: Graph) -> Expr | None:
    name = operator(value)
    if name not in _NAMES:
        return None
    wide = _wide(name, str(getattr(value.args[0].ty, "dtype", "")))
    if wide is None or _adds_up_within(value):
        return None
    narrow = str(value.args[0].ty.dtype)
    operands = [
        relax.op.astype(operand, wide)
        if str(getattr(operand.ty, "dtype", "")) == narrow
        else operand
        for operand in value.args
    ]
    computed = tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)
    if isinstance(value.ty, relax.TupleType):
        parts = enumerate(value.ty.fields)
        items = [(tvm.ir.TupleGetItem(computed, i), str(part.dtype)) for i, part in parts]
        return tvm.ir.Tuple(
            [relax.op.astype(item, dtype) if dtype == narrow else item for item, dtype in items]
        )
    return computed if name in _FIXED else relax.op.astype(computed, str(value.ty.dtype))


def _wide(name: str, dtype: str) -> str | None:
    """The type to compute an operator in, or None if the one that it has will do."""
    if name in _OF_BITS and dtype == "bool":
        return "int32" if name == "sum" else "int8"
    if name in _OF_HALVES and dtype in ("float16", "bfloat16"):
        return "float32"
    if name in _OF_SUMS | _OF_KINDS | {"argsort"} and dtype == "bfloat16":
        return "float32"
    if name in _OF_HALF_SUMS and dtype == "float16":
        return "float32"
    return "float64" if name == "power" and "int" in dtype else None
