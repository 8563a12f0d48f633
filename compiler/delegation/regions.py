"""Regions: parts of a graph that ONNX Runtime computes, called from compiled code.

While passes run, `main` calls a region as a packed function of its own name that writes into
buffers given to it.  No pass looks inside.  When code is generated, `lift` adds a parameter, a
tuple of functions, and each call gets its own of them as first argument: what a name means is then
up to who calls `main`, and two sessions in one process cannot mix.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tvm
import tvm_ffi
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import Expr, operator
from hybridc.compiler.model import OpaqueSpec, TensorSpec

PREFIX = "hybridc."


def call(name: str, operands: Sequence[Expr], outputs: Sequence[TensorSpec]) -> Expr:
    """A call of the region of this name; its value is one tensor, or a tuple of several."""
    types = [relax.TensorType(spec.shape, spec.dtype) for spec in outputs]
    return relax.op.call_dps_packed(f"{PREFIX}{name}", tvm.ir.Tuple(list(operands)), types)


def lift(module: IRModule, names: Sequence[str]) -> IRModule:
    """Add the parameter `regions` to `main`, the functions in the order of `names`.

    The module given is returned where there are none.
    """
    if not names:
        return module
    kind = relax.TupleType([relax.ObjectType() for _ in names])
    functions = relax.Var("regions", kind)
    lifter = _Lifter({f"{PREFIX}{name}": index for index, name in enumerate(names)}, functions)
    main = lifter.visit_expr(module["main"])
    lifted = relax.Function([*main.params, functions], main.body, main.ret_ty, main.is_pure)
    clone = module.clone()
    clone["main"] = lifted.with_attr("global_symbol", "main")
    return clone


def announce(names: Sequence[str]) -> None:
    """Let TVM know the packed functions of these regions; they have no state."""
    for name in names:
        tvm_ffi.register_global_func(f"{PREFIX}{name}", _call_first, override=True)


def _call_first(function: Any, *arguments: Any) -> Any:
    return function(*arguments)


@mutator
class _Lifter(PyExprMutator):
    """Puts the function of each region in front of the arguments of its calls."""

    def __init__(self, places: Mapping[str, int], functions: Expr) -> None:
        super().__init__()
        self._places, self._functions = places, functions

    def visit_call_(self, op: Any) -> Any:
        """Calls that fill buffers, and those that still make their result."""
        if isinstance(op.op, relax.ExternFunc) and op.op.global_symbol in self._places:
            arguments = [self._function(op.op), *map(self.visit_expr, op.args)]
            return tvm.ir.Call(op.op, arguments, op.attrs, op.ty_args)
        if operator(op) == "call_dps_packed" and isinstance(op.args[0], relax.ExternFunc):
            callee, operands = op.args[:2]
            if callee.global_symbol in self._places:
                fields = [self._function(callee), *map(self.visit_expr, operands.fields)]
                return tvm.ir.Call(op.op, [callee, tvm.ir.Tuple(fields)], op.attrs, op.ty_args)
        return super().visit_call_(op)

    def _function(self, callee: Any) -> Expr:
        place = self._places[callee.global_symbol]
        return self.builder_.emit(tvm.ir.TupleGetItem(self._functions, place))


def opaque(specs: Sequence[TensorSpec]) -> list[str]:
    """The names of those values that compiled code does not look into."""
    return [spec.name for spec in specs if isinstance(spec, OpaqueSpec)]
