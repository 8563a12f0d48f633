"""Kernels that a model alone calls, on tensors that it made itself, check no arguments.

TVM has every function compare number, types, shapes, strides and devices of what it is given, with
a message for each: a thousand lines of LLVM's code for a kernel of three tensors, half of what is
generated of a model.  Whoever runs a model has its inputs checked by `main` and by the session.
"""

from typing import Any

from tvm import tirx
from tvm.ir.transform import module_pass
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.ir.rewrite import updated

_KNOWN = "hybridc.known_arguments"
# What is raised where an argument is another than asked for.
_ERRORS = ("TypeError", "ValueError")


def trusting(func: PrimFunc) -> PrimFunc:
    """The function, lowered without checks of its arguments, unless it asserts such itself."""
    own: list[str] = []
    structural_walk(func.body, (tirx.AssertStmt, lambda each: own.append(_raised(each))))
    return func if set(own) & set(_ERRORS) else func.with_attr(_KNOWN, True)


@module_pass(opt_level=0)
def drop_checks(module: IRModule, context: Any) -> IRModule:
    """Take the checks out of functions that are `trusting`, behind the lowering that adds them."""
    functions = {
        var: func.with_body(structural_map(func.body, (tirx.AssertStmt, _unless_an_argument)))
        for var, func in module.functions_items()
        if func.attrs and _KNOWN in func.attrs
    }
    return updated(module, functions)


def _unless_an_argument(check: Any) -> Any:
    return tirx.Evaluate(tirx.const(0, "int32")) if _raised(check) in _ERRORS else check


def _raised(check: Any) -> str:
    return str(check.error_kind.value)
