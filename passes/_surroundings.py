"""What lies around a convolution as far as a layout would spread."""

from collections import defaultdict
from collections.abc import Callable
from typing import Any

from tvm import relax

from hybridc.compiler.ir.rewrite import Expr, Graph, operator

# Tensors of fewer axes have no layout that a transpose could change.
_LEAST_AXES = 3


def is_alone(value: Expr, graph: Graph, allowed: Callable[[Expr], bool]) -> bool:
    """Whether no tensor that operators link with a convolution's is turned or convolved as well.

    Other convolutions may be there where they are `allowed`.
    """
    links: dict[Any, list[tuple[Expr, list[Expr]]]] = defaultdict(list)
    for var, bound in graph.values.items():
        linked = [var, *relax.analysis.free_vars(bound)]
        for each in linked:
            links[each].append((bound, linked))
    seen: set[Any] = set()
    todo = list(relax.analysis.free_vars(value))
    while todo:
        tensor = todo.pop()
        if tensor in seen or _is_small(tensor):
            continue
        seen.add(tensor)
        for bound, linked in links[tensor]:
            name = operator(bound)
            if name == "permute_dims" or ("conv" in name and not allowed(bound)):
                return False
            todo += linked
    return True


def _is_small(tensor: Expr) -> bool:
    rank = getattr(tensor.ty, "ndim", -1)
    return 0 <= rank < _LEAST_AXES
