"""What of a module has another type than before, so that it can be told in plain words.

TVM notices only where something else reads the value, and then speaks of the reader.
"""

from collections.abc import Iterable
from typing import Any

from tvm import relax

Expr = Any  # a Relax expression; TVM ships no types


def of_values(functions: Iterable[Expr]) -> str:
    """The first value whose type is not that of the variable which it is bound to; else nothing."""
    for function in functions:
        builder = relax.BlockBuilder()
        for block in function.body.blocks:
            for binding in block.bindings:
                if isinstance(binding, relax.VarBinding):
                    value = builder.normalize(binding.value)
                    if told := _told(binding.var.ty, value.ty):
                        return f"it replaced {binding.var.name_hint}, {told}"
    return ""


def of_results(before: Any, after: Any) -> str:
    """The first result of a function that has another type in `after`; else nothing."""
    then = {var.name_hint: func for var, func in before.functions_items()}
    for var, func in after.functions_items():
        old = then.get(var.name_hint)
        if not (isinstance(func, relax.Function) and isinstance(old, relax.Function)):
            continue
        leaves = _leaves(old.body.ty), _leaves(func.body.ty)
        if len(leaves[0]) != len(leaves[1]):
            return f"{var.name_hint} had {len(leaves[0])} results, and now {len(leaves[1])}"
        for place, (one, other) in enumerate(zip(*leaves, strict=True)):
            if told := _told(one, other):
                return f"it replaced result {place} of {var.name_hint}, {told}"
    return ""


def _leaves(kind: Any) -> list[Any]:
    fields = getattr(kind, "fields", None)
    return [kind] if fields is None else [leaf for field in fields for leaf in _leaves(field)]


def _told(old: Any, new: Any) -> str:
    """`a float32 of 2 dimensions, by a float16 of 2 dimensions`; nothing where the two agree."""
    if not (isinstance(old, relax.TensorType) and isinstance(new, relax.TensorType)):
        return ""
    kinds = [(str(each.dtype), int(each.ndim)) for each in (old, new)]
    known = all(dtype and ndim >= 0 for dtype, ndim in kinds)
    if not known or kinds[0] == kinds[1]:
        return ""
    shown = (f"a {dtype} of {ndim} dimensions" for dtype, ndim in kinds)
    return f"{', by '.join(shown)}: a value keeps its type (cast it back)"
