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
from hybridc.compiler.kernels.attention.attention import attention
from hybridc.compiler.kernels.attention.attention_form import Attention, Fill
from hybridc.compiler.kernels.attention.attention_stages import attention_stages, fits
from hybridc.compiler.target import Target
from hybridc.passes import _attention_operands, _constant_values
from hybridc.passes._attention_operands import NEEDS
from hybridc.passes._narrow_storage import on_narrow

# What is added to or put in place of scores so that exp makes zeros of them: the lowest number of
# fp16, which exporters take for masks of any type; scores beyond 30,000 would be needed for
# anything else.
_NEVER = -65504.0
_FLOATS = ("float32", *NEEDS)


@dataclass(frozen=True)
class FuseAttention(Pass):
    """Fuse scores, softmax and weighted values into one kernel.

    Matches `softmax(q k [* scale] [+ mask]) v` of rank 4 in fp32, on GPUs also of 16 bits, whose
    scores may be cast in between: with transposes and scales of q and k, heads of k and v repeated
    for groups of queries, a mask that is added or a boolean one, and weights whose NaN are set to
    zero or not.  A constant causal mask is replaced by not computing what is above its diagonal.
    Neither scores nor repeated heads are written to memory.
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
        if operator(value) != "matmul" or not self._takes(value):
            return None
        dtype = str(value.ty.dtype)
        softmax, safe = _softmax(_attention_operands.behind(value.args[0], graph), graph)
        inner = None if softmax is None else _attention_operands.behind(softmax.args[0], graph)
        scores = None if inner is None else _scores(inner, graph)
        if scores is None or not all(
            _is_matrix(each, dtype) for each in (scores.query, scores.key, value.args[1])
        ):
            return None
        query, scale = _attention_operands.operand(scores.query, graph)
        key, key_scale = _attention_operands.operand(scores.key, graph)
        values, value_scale = _attention_operands.operand(value.args[1], graph)
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
            dtype=dtype,
        )
        if not _consistent(form, value):
            return None
        depth = query[1].extent(3)
        form = replace(form, scale=_attention_operands.exact_scale(form.scale, depth, dtype))
        if self.target.gpu and not fits(form, self.target.gpu):
            return None
        form, mask = _masked(form, scores, graph)
        return self._call(form, tensors if mask is None else [*tensors, mask])

    def _takes(self, value: Expr) -> bool:
        """Whether a product is of rank 4 in a type that attention is multiplied in here."""
        dtype, gpu = str(value.ty.dtype), self.target.gpu
        narrow = gpu is not None and NEEDS.get(dtype) in gpu.features
        return _is_matrix(value, dtype if narrow else "float32")

    def _call(self, form: Attention, arguments: list[Expr]) -> Expr:
        lanes = self.target.lanes()
        kernel = attention_stages(form) if self.target.gpu else attention(_opened(form), lanes)
        if form.mask is not None and (mask := str(arguments[-1].ty.dtype)) in NEEDS:
            kernel = on_narrow(kernel, [kernel.params[3]], mask)
        var = self.builder.add_func(kernel, "attention")
        batch, heads, rows, _ = (form.query.extent(axis) for axis in range(4))
        result = relax.TensorType((batch, rows, heads, form.value.extent(3)), "float32")
        made = relax.call_tir(var, arguments, result)
        if form.dtype != "float32":
            made = relax.op.astype(made, form.dtype)
        return relax.op.permute_dims(made, [0, 2, 1, 3])


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
            plain = _is_plain(mask, str(mask.ty.dtype)) and str(mask.ty.dtype) in _FLOATS
            return replace(product, mask=mask) if plain else None
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
    inner, scale = _attention_operands.scaled(_attention_operands.behind(expr, graph), graph)
    matmul = graph.call(_attention_operands.behind(inner, graph), "matmul")
    return None if matmul is None else _Scores(matmul.args[0], matmul.args[1], scale)


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


def _is_matrix(expr: Expr, dtype: str) -> bool:
    return _is_plain(expr, dtype) and len(expr.ty.shape.values) == 4


def _is_plain(expr: Expr, dtype: str) -> bool:
    return isinstance(expr.ty.shape, relax.ShapeExpr) and str(expr.ty.dtype) == dtype
