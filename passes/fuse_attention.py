"""Fuse scores, softmax and weighted values into one kernel."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    are_known,
    opened,
    operator,
    rewrite,
    shape,
    updated,
)
from hybridc.compiler.kernels.attention import attention
from hybridc.compiler.kernels.attention_form import Attention, Fill, Operand
from hybridc.compiler.kernels.attention_stages import attention_stages, fits
from hybridc.compiler.target import Target
from hybridc.passes import _constant_values

# What is added to or put in place of scores so that exp makes zeros of them; scores beyond a
# billion would be needed for anything else.
_NEVER = -1e9


@dataclass(frozen=True)
class FuseAttention(Pass):
    """Fuse scores, softmax and weighted values into one kernel.

    Matches `softmax(q k [* scale] [+ mask]) v` of rank 4 in fp32: with transposes and scales of q
    and k, heads of k and v repeated for groups of queries, a mask that is added or a boolean one,
    and weights whose NaN are set to zero or not.  A constant causal mask is replaced by not
    computing what is above its diagonal.  Neither scores nor repeated heads are written to memory.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every function of the graph; the kernels join the module."""
        builder = relax.BlockBuilder(module)
        rewritten = rewrite(module, _Fuser(context.target, builder).rule)
        if rewritten is module:
            return module
        kernels = {
            var: func
            for var, func in builder.get().functions_items()
            if isinstance(func, tirx.PrimFunc)
        }
        return updated(rewritten, kernels)


@dataclass(frozen=True)
class _Scores:
    """`query key * scale` and its mask, where the two still have their transposes."""

    query: Expr
    key: Expr
    scale: float
    mask: Expr | None = None
    fill: Fill | None = None


@dataclass(frozen=True)
class _Fuser:
    target: Target
    builder: Any

    def rule(self, value: Expr, graph: Graph) -> Expr | None:
        """Take the product of a softmax and values."""
        if operator(value) != "matmul" or not _plain(value):
            return None
        softmax, safe = _softmax(value.args[0], graph)
        scores = None if softmax is None else _scores(softmax.args[0], graph)
        if scores is None or not all(map(_plain, (scores.query, scores.key, value.args[1]))):
            return None
        query, scale = _operand(scores.query, graph)
        key, key_scale = _operand(scores.key, graph)
        values, value_scale = _operand(value.args[1], graph)
        if value_scale != 1.0:
            return None
        tensors = [query[0], key[0], values[0]]
        form = Attention(
            query=query[1],
            key=key[1],
            value=values[1],
            scale=scores.scale * scale * key_scale,
            mask=None,
            safe=safe,
        )
        if not _consistent(form, value):
            return None
        if self.target.gpu and not fits(form, self.target.gpu):
            return None
        form, mask = _masked(form, scores, graph)
        return self._call(form, tensors if mask is None else [*tensors, mask])

    def _call(self, form: Attention, arguments: list[Expr]) -> Expr:
        lanes = self.target.lanes()
        kernel = attention_stages(form) if self.target.gpu else attention(_opened(form), lanes)
        var = self.builder.add_func(kernel, "attention")
        batch, heads, rows, _ = (form.query.extent(axis) for axis in range(4))
        result = relax.TensorType((batch, rows, heads, form.value.extent(3)), "float32")
        return relax.op.permute_dims(relax.call_tir(var, arguments, result), [0, 2, 1, 3])


def _opened(form: Attention) -> Attention:
    """The form for a kernel of its own, whose open number of sequences is its own variable."""
    operands = (form.query, form.key, form.value)
    shapes = opened(*(each.shape for each in operands), form.mask or ())
    q, k, v = (replace(each, shape=found) for each, found in zip(operands, shapes, strict=False))
    return replace(form, query=q, key=k, value=v, mask=None if form.mask is None else shapes[-1])


def _masked(form: Attention, scores: _Scores, graph: Graph) -> tuple[Attention, Expr | None]:
    """The form with its mask; one that is known and lets columns be met causally is no tensor."""
    if scores.mask is None:
        return form, None
    rows, columns = form.query.extent(2), form.key.extent(3)
    known = _constant_values.known(scores.mask, graph)
    met = None if known is None else _met(known, scores.fill)
    diagonal = None if met is None else _diagonal(met, rows, columns)
    if diagonal is None:
        return replace(form, mask=shape(scores.mask), fill=scores.fill), scores.mask
    return replace(form, causal=diagonal if diagonal + 1 < columns else None), None


def _met(mask: Any, fill: Fill | None) -> Any:
    """Which columns a known mask lets be met; None if it does more to scores than that."""
    if fill is not None:
        return mask != fill.where if fill.value <= _NEVER else None
    met = mask == 0
    return met if np.all(met | (mask <= _NEVER)) else None


def _diagonal(met: Any, rows: int, columns: int) -> int | None:
    """The last column that row 0 meets where each row meets one more; None if it is not so."""
    if met.all():
        return columns - 1
    if met.shape[-2:] != (rows, columns):
        return None
    first = int(met.reshape(-1, columns)[0].sum()) - 1
    triangle = np.tri(rows, columns, first, dtype=bool)
    return first if first >= 0 and (met == triangle).all() else None


def _softmax(weights: Expr, graph: Graph) -> tuple[Expr | None, bool]:
    """The softmax behind `weights`, and whether what is no number was set to zero."""
    chosen = graph.call(weights, "where")
    if chosen is None:
        return _over_last_axis(graph.call(weights, "nn.softmax")), False
    condition = graph.call(chosen.args[0], "isnan")
    zero = graph.constant(chosen.args[1])
    if condition is None or zero is None or np.any(zero):
        return None, False
    if not graph.value(condition.args[0]).same_as(graph.value(chosen.args[2])):
        return None, False
    return _over_last_axis(graph.call(chosen.args[2], "nn.softmax")), True


def _over_last_axis(softmax: Expr | None) -> Expr | None:
    if softmax is None:
        return None
    last = len(shape(softmax)) - 1
    return softmax if int(softmax.attrs.axis) % (last + 1) == last else None


def _scores(logits: Expr, graph: Graph) -> _Scores | None:
    """Take apart `q k * scale` and a mask that is added or filled in; both may be missing."""
    value = graph.value(logits)
    if operator(value) == "where":
        return _filled(value, graph)
    if operator(value) != "add":
        return _product(value, graph)
    for scores, mask in (value.args, reversed(value.args)):
        product = _product(scores, graph)
        if product is not None and len(shape(mask)) >= 1:
            return replace(product, mask=mask) if _is_plain(mask, "float32") else None
    return None


def _filled(choice: Expr, graph: Graph) -> _Scores | None:
    """Scores some of which a mask of booleans replaces by a constant."""
    condition, *cases = choice.args
    if not _is_plain(condition, "bool") or not shape(condition):
        return None
    for scores, other in (cases, reversed(cases)):
        product, value = _product(scores, graph), graph.constant(other)
        if product is not None and value is not None and value.size == 1:
            fill = Fill(float(value.item()), where=scores is cases[1])
            return replace(product, mask=condition, fill=fill)
    return None


def _product(expr: Expr, graph: Graph) -> _Scores | None:
    """A matrix product, and the scalar that it is scaled by."""
    inner, scale = _scaled(expr, graph)
    matmul = graph.call(inner, "matmul")
    return None if matmul is None else _Scores(matmul.args[0], matmul.args[1], scale)


def _scaled(expr: Expr, graph: Graph) -> tuple[Expr, float]:
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


def _operand(expr: Expr, graph: Graph) -> tuple[tuple[Expr, Operand], float]:
    """The tensor behind scales, transposes and repeated heads, how its axes lie, and the scale."""
    source, scale, axes = expr, 1.0, [0, 1, 2, 3]
    while True:
        inner, factor = _scaled(source, graph)
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


def _consistent(form: Attention, result: Expr) -> bool:
    """Whether the extents fit, with whole groups of query heads for each head of keys."""
    query, key, value = form.query, form.key, form.value
    # A mask may broadcast scores beyond what queries and keys make.
    return (
        shape(result) == (*map(query.extent, range(3)), value.extent(3))
        and query.extent(0) == key.extent(0) == value.extent(0)
        and query.extent(1) % key.extent(1) == 0
        and key.extent(1) == value.extent(1)
        and query.extent(3) == key.extent(2)
        and key.extent(3) == value.extent(2)
        and 0 not in [size for each in (query, key, value) for size in each.shape]
        and are_known(each.extent(i) for each in (query, key, value) for i in (1, 2, 3))
    )


def _plain(expr: Expr) -> bool:
    return _is_plain(expr, "float32") and len(expr.ty.shape.values) == 4


def _is_plain(expr: Expr, dtype: str) -> bool:
    return isinstance(expr.ty.shape, relax.ShapeExpr) and str(expr.ty.dtype) == dtype
