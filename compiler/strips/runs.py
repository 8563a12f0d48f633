"""Where the strips of one size lie along an axis: how many they are, and where each begins."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import sym, tirx
from tvm.ir import Range

from hybridc.compiler.strips.axes import Expr


@dataclass(frozen=True)
class Run:
    """`count` strips along an axis; `first` gives where the strip of a number begins.

    The statements `before` say what the variables in these are.  Written out, TVM would simplify
    them wherever an element is accessed: for minutes where two axes are open.
    """

    count: Expr
    first: Callable[[Expr], Expr]
    before: tuple[Any, ...] = ()


def whole(extent: Expr, size: int) -> Run:
    """Strips that make up a whole axis, which has at least `size` places.

    The last one begins where it ends with the axis.
    """
    if size == 1:
        return Run(extent, lambda strip: strip)
    count = tirx.floordiv(extent + (size - 1), size)
    return Run(count, lambda strip: tirx.min(strip * size, extent - size))


def following(extent: Expr, sizes: Sequence[int]) -> list[Run]:
    """Strips of each size, longer ones first, of which shorter ones compute what is left.

    What is left is one more strip of a size if shorter ones would compute as many places.  Strips
    of one place are for axes that are shorter than any other strip.
    """
    runs: list[Run] = []
    done: Expr = tirx.const(0, "int64")
    longer = [size for size in sizes if size > 1]
    for size, shorter in zip(longer, [*longer[1:], *longer[-1:]], strict=True):
        count, end = (tirx.Var(f"{name}{size}", "int64") for name in ("strips", "end"))
        more = tirx.floordiv(extent - done + (shorter - 1), size)
        before = (
            tirx.Bind(count, _hidden(tirx.Select(extent >= size, more, tirx.const(0, "int64")))),
            tirx.Bind(end, _hidden(tirx.min(done + count * size, extent))),
        )
        runs.append(Run(count, _from(done, size, extent), before))
        done = end
    return [*runs, Run(extent - done, lambda strip: strip)] if 1 in sizes else runs


def _hidden(value: Expr) -> Expr:
    """A value that TVM does not look into, which takes it twice as long; LLVM does.

    Of a call that is said to be pure TVM puts the value wherever the variable is read.
    """
    return tirx.call_llvm_intrin("int64", "llvm.expect", value, tirx.const(1, "int64"))


def _from(done: Expr, size: int, extent: Expr) -> Callable[[Expr], Expr]:
    return lambda strip: tirx.min(done + strip * size, extent - size)


def always(extent: Expr, size: int) -> bool:
    """Whether an extent is never below a size: 16 strips of an open length have at least 16 places.

    TVM fails on what would be left for smaller ones, which have an axis of no places.
    """
    analyzer = sym.Analyzer()
    one, most = (tirx.const(number, "int64") for number in (1, 2**31))
    span = Range.from_min_extent(one, most)
    for var in tirx.analysis.undefined_vars(extent):
        analyzer.bind(var, span)
    return bool(size == 1 or analyzer.can_prove(extent >= size))
