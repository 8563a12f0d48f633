"""Compute equal expressions once, and keep equal constants once."""

from dataclasses import dataclass, field

import numpy as np
import tvm
from blake3 import blake3
from tvm import relax
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Expr, relax_functions, tidy, unless_same, updated
from hybridc.compiler.runtime import tensors


@dataclass(frozen=True)
class EliminateCommonSubexpressions(Pass):
    """Merge equal constants, and equal operators on equal operands."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Share constants, then leave the operators to TVM's own elimination."""
        constants = _Constants()
        hidden = constants.hide(module)
        shared = constants.restore(hidden) if constants.repeated else module
        merged = constants.restore(relax.transform.EliminateCommonSubexpr()(hidden))
        return unless_same(shared, tidy(merged))


@dataclass
class _Constants:
    """Constants by content, each a parameter while TVM, which hashes all it meets, is at it."""

    repeated: bool = False
    _parameters: dict[tuple[str, str, str], Expr] = field(default_factory=dict)
    _first: dict[Expr, Expr] = field(default_factory=dict)

    def hide(self, module: IRModule) -> IRModule:
        """Every Relax function with one more parameter for each content that it may hold."""
        bodies = {
            variable: structural_map(function.body, (tvm.ir.GenericConst, self._parameter))
            for variable, function in relax_functions(module)
        }
        functions = {
            variable: _function(function, [*function.params, *self._first], bodies[variable])
            for variable, function in relax_functions(module)
        }
        return updated(module, functions)

    def restore(self, module: IRModule) -> IRModule:
        """The first constant of each content in the place of its parameter."""
        functions = {
            variable: _function(
                function,
                [each for each in function.params if each not in self._first],
                structural_map(function.body, (tvm.ir.Var, lambda var: self._first.get(var, var))),
            )
            for variable, function in relax_functions(module)
        }
        return updated(module, functions)

    def _parameter(self, constant: Expr) -> Expr:
        if not isinstance(constant.value, tvm.runtime.Tensor):
            return constant
        array = tensors.view(constant.value)
        content = array.reshape(-1).view(np.uint8).data
        key = str(array.dtype), str(array.shape), blake3(content).hexdigest()
        if key not in self._parameters:
            parameter = relax.Var(f"constant{len(self._first)}", constant.ty)
            self._parameters[key], self._first[parameter] = parameter, constant
        first = self._first[self._parameters[key]]
        self.repeated |= not first.same_as(constant)
        return self._parameters[key]


def _function(function: Expr, params: list[Expr], body: Expr) -> Expr:
    return relax.Function(params, body, function.ret_ty, function.is_pure, function.attrs)
