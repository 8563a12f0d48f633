"""Open sizes that are sums of others: a mask has the length of a past and of new tokens."""

from typing import Any

from tvm import tirx


class SumError(Exception):
    """An open size that an input names is the sum of others; else its model computes nothing."""

    def __init__(self, name: str, parts: tuple[str, ...], plus: int) -> None:
        super().__init__(f"{name} is a sum")
        self.name, self.parts, self.plus = name, parts, plus


def require_none(sizes: Any, one: Any, other: Any) -> None:
    """Raise SumError where two extents are equal only if one of `sizes.Sizes` sums up others."""
    difference = sizes.plain(_unclipped(one) - _unclipped(other))
    if isinstance(difference, int):
        return
    used = tirx.analysis.undefined_vars(difference)
    names = [n for n, var in sizes.variables.items() if any(var.same_as(v) for v in used)]
    nothing = tirx.const(0, "int64")
    for name in names:
        dim, rest = sizes.dims[name], tuple(n for n in names if n != name)
        without = sizes.with_size(difference, dim, nothing)
        for told in (sizes.plain(without), sizes.plain(-without)):
            plus = sizes.plain(told - sum(sizes.variables[part] for part in rest))
            if not rest or not isinstance(plus, int) or isinstance(told, int) or dim.bounded:
                continue
            if sizes.same(sizes.plain(sizes.with_size(difference, dim, told)), 0):
                raise SumError(name, rest, plus)


def _unclipped(extent: Any) -> Any:
    """An extent without the bound that keeps it from being negative."""
    clipped = isinstance(extent, tirx.Max) and isinstance(extent.b, tirx.IntImm)
    return extent.a if clipped and int(extent.b) == 0 else extent
