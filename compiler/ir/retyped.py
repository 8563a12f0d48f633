"""What a pass made of another type than it was, so that it can be told in plain words.

TVM trusts the types of variables: what is bound to them by mistake is found by kernels, if at all.
"""

from typing import Any

from tvm import relax


def told(before: Any, after: Any) -> str:
    """The first value that is not of its variable's type, or result of another type than before.

    Empty where all is as it was.
    """
    then = {var.name_hint: func for var, func in before.functions_items()}
    for var, func in after.functions_items():
        old = then.get(var.name_hint)
        if isinstance(func, relax.Function) and not func.same_as(old):
            found = _of_values(func)
            if not found and isinstance(old, relax.Function):
                found = _of_results(var.name_hint, old, func)
            if found:
                return found
    return ""


def _of_values(function: Any) -> str:
    for block in function.body.blocks:
        for binding in block.bindings:
            value = binding.value if isinstance(binding, relax.VarBinding) else binding.var
            if other := _other(binding.var.ty, value.ty):
                return f"it replaced {binding.var.name}, {other}"
    return ""


def _of_results(name: str, old: Any, new: Any) -> str:
    then, now = _leaves(old.body.ty), _leaves(new.body.ty)
    if len(then) != len(now):
        return f"{name} had {len(then)} results, and now {len(now)}"
    for place, pair in enumerate(zip(then, now, strict=True)):
        if other := _other(*pair):
            return f"it replaced result {place} of {name}, {other}"
    return ""


def _leaves(kind: Any) -> list[Any]:
    fields = getattr(kind, "fields", None)
    return [kind] if fields is None else [leaf for field in fields for leaf in _leaves(field)]


def _other(old: Any, new: Any) -> str:
    """`a float32 of 2 dimensions, by a float16 of 2 dimensions`; nothing where the two agree."""
    if not (isinstance(old, relax.TensorType) and isinstance(new, relax.TensorType)):
        return ""
    kinds = [(str(each.dtype), int(each.ndim)) for each in (old, new)]
    known = all(dtype and ndim >= 0 for dtype, ndim in kinds)
    if not known or kinds[0] == kinds[1]:
        return ""
    shown = (f"a {dtype} of {ndim} dimensions" for dtype, ndim in kinds)
    return f"{', by '.join(shown)}: a value keeps its type (cast it back)"
