"""Kernels that only reshape, and the views that take their place."""

from typing import Any

from tvm import relax, tirx
from tvm.error import InternalError
from tvm.ir.transform import module_pass

from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.ir.rewrite import updated


def reshapes(kernel: PrimFunc) -> bool:
    """Whether a loop nest copies its input in the same order, as far as TVM can tell.

    It fails where a transpose has a size such as `n - 3`, which it cannot divide.
    """
    found = _reshapes(kernel)
    return bool(found)


@module_pass(opt_level=0, name="view_reshapes")
def view_reshapes(module: Any, context: Any) -> Any:
    """Make a view of each call of a loop nest that only reshapes, within the dataflow."""
    del context
    unknown = {
        var: func
        for var, func in module.functions_items()
        if isinstance(func, tirx.PrimFunc) and _reshapes(func) is None
    }
    # TVM asks all of them, and one failure would be that of the whole module.
    hidden = {var: func.with_body(tirx.Evaluate(0)) for var, func in unknown.items()}
    viewed: IRModule = relax.transform.RewriteDataflowReshape()(updated(module, hidden))
    return updated(viewed, unknown)


def _reshapes(kernel: PrimFunc) -> bool | None:
    """The same, or None where TVM fails."""
    try:
        return bool(relax.analysis.has_reshape_pattern(kernel))
    except InternalError:
        return None
