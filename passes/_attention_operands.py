"""Operands of attention in a graph: behind casts, scales, transposes and repeated heads."""

import ml_dtypes
from tvm import relax

from hybridc.compiler.ir.rewrite import Expr, Graph, operator, shape
from hybridc.compiler.kernels.attention.attention_form import Operand

_FLOATS = ("float32", "float16", "bfloat16")
# What tensor cores need to multiply what attention may be in on GPUs, beside float32.
NEEDS = {"float16": "mma", "bfloat16": "mma.bf16"}


def behind(expr: Expr, graph: Graph) -> Expr:
    """What casts between floats are made of; the scores of 16 bits are often cast for softmax."""
    while (cast := graph.call(expr, "astype")) is not None:
        if not {str(each.ty.dtype) for each in (cast, cast.args[0])} <= set(_FLOATS):
            break
        expr = cast.args[0]
    return expr


def exact_scale(scale: float, depth: object, dtype: str) -> float:
    """The scale; where 16 bits rounded it, one over the root of the depth again.

    Exporters write the root of that twice, of queries and of keys, as numbers of `dtype`.
    """
    if dtype not in NEEDS or not isinstance(depth, int):
        return scale
    exact = depth**-0.5
    return exact if abs(scale / exact - 1) <= float(ml_dtypes.finfo(dtype).eps) else scale


def scaled(expr: Expr, graph: Graph) -> tuple[Expr, float]:
    """What a scalar multiplies or divides, and the factor."""
    value = graph.value(expr)
    if operator(value) not in ("multiply", "divide"):
        return expr, 1.0
    left, right = (graph.constant(argument) for argument in value.args)
    if right is not None and right.size == 1 and right.all():
        factor = float(right.item())
        return value.args[0], factor if operator(value) == "multiply" else 1.0 / factor
    if left is not None and left.size == 1 and operator(value) == "multiply":
        return value.args[1], float(left.item())
    return expr, 1.0


def operand(expr: Expr, graph: Graph) -> tuple[tuple[Expr, Operand], float]:
    """The tensor behind scales, transposes and repeated heads, how its axes lie, and the scale."""
    source, scale, axes = expr, 1.0, [0, 1, 2, 3]
    while True:
        inner, factor = scaled(source, graph)
        scale *= factor
        if (found := _transposed(inner, graph)) is not None:
            source, order = found
            axes = [order[axis] for axis in axes]
        elif (repeated := _repeated(inner, graph)) is not None and axes[:2] == [0, 1]:
            source = repeated
        else:
            break
    if axes[1] == 2 and axes[0] == 0 and (part := _part(inner, graph)) is not None:
        whole, heads, first = part
        batch, rows, count, depth = shape(inner)
        lies = Operand((batch, rows, heads, depth), tuple(axes), first, count)
        return (whole, lies), scale
    return (inner, Operand(shape(inner), tuple(axes))), scale


def _part(expr: Expr, graph: Graph) -> tuple[Expr, int, int] | None:
    """The tensor that `expr`, `[B, S, H, D]`, is some heads of; its heads, and the first meant."""
    split = graph.call(expr, "reshape")
    part = None if split is None else graph.call(split.args[0], "strided_slice")
    if part is None or len(shape(expr)) != 4 or len(shape(part)) != 3:
        return None
    axes, begin, end, *strides = (
        [int(value.value if hasattr(value, "value") else value) for value in operand.fields]
        for operand in part.args[1:]
    )
    batch, rows, heads, depth = shape(expr)
    width = shape(part.args[0])[2]
    whole = shape(part) == (batch, rows, heads * depth) and axes == [2] and strides in ([], [[1]])
    if not whole or begin[0] % depth or width % depth or end[0] != begin[0] + heads * depth:
        return None
    count = width // depth
    return relax.op.reshape(part.args[0], (batch, rows, count, depth)), count, begin[0] // depth


def _transposed(expr: Expr, graph: Graph) -> tuple[Expr, list[int]] | None:
    """What a transpose of rank 4 reads, and the axis of it that each axis is."""
    transpose = graph.call(expr, "permute_dims")
    if transpose is None or len(shape(transpose)) != 4 or transpose.attrs.axes is None:
        return None
    return transpose.args[0], [int(axis) % 4 for axis in transpose.attrs.axes]


def _repeated(expr: Expr, graph: Graph) -> Expr | None:
    """The heads that `expr` holds several times each, one copy behind the other."""
    joined = graph.call(expr, "reshape")
    copies = None if joined is None else graph.call(joined.args[0], "broadcast_to")
    single = None if copies is None else graph.call(copies.args[0], "expand_dims", "reshape")
    if joined is None or copies is None or single is None or len(shape(copies)) != 5:
        return None
    batch, heads, count, *rest = shape(copies)
    fits = shape(joined) == (batch, heads * count, *rest)
    fits = fits and shape(single) == (batch, heads, 1, *rest)
    return single.args[0] if fits and shape(single.args[0]) == (batch, heads, *rest) else None
