"""Join each kernel with the elementwise operators around it."""

from dataclasses import dataclass
from typing import Any

from tvm import relax
from tvm.ir import TupleType
from tvm.ir.transform import Sequential
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.rewrite import bindings_of, operator, relax_functions, unless_same, updated

_NARROW = {"bool", "int8", "uint8"}


@dataclass(frozen=True)
class Fuse(Pass):
    """Join each kernel with the elementwise operators around it.

    Bias, activation and residual become the epilogue of the convolution or product that feeds
    them, and chains of elementwise operators one loop nest: each avoided kernel saves a write
    and a read of a whole tensor.  What is cast to 8 bits is stored: a quantised tensor is the
    result of what computes it, and what reads it joins the next.  Reshapes that joined no kernel
    become views.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Group by TVM's operator patterns, then merge each group's loop nests."""
        functions = {var: _stored(func) for var, func in relax_functions(module)}
        fused = Sequential(
            [
                relax.transform.AnnotateTIROpPattern(),
                relax.transform.FuseOps(),
                relax.transform.FuseTIR(),
                # Now, while a reshape's loop nest can still be told from any other copy.
                relax.transform.RewriteDataflowReshape(),
                relax.transform.DeadCodeElimination(),
            ]
        )(updated(module, functions))
        return unless_same(module, fused)


def _stored(function: Any) -> Any:
    """Let what is cast to 8 bits be seen outside its dataflow: TVM then ends a group there."""
    narrow = {
        binding.var: relax.Var(binding.var.name, binding.var.ty)
        for binding in bindings_of(function)
        if isinstance(binding.var, relax.DataflowVar) and _narrows(binding.value)
    }
    if not narrow:
        return function
    return structural_map(function, (relax.DataflowVar, lambda var: narrow.get(var, var)))


def _narrows(value: Any) -> bool:
    """Whether a loop nest makes bytes of wider numbers."""
    if operator(value) != "call_tir" or not _types(value) <= _NARROW:
        return False
    return any(not _types(operand) <= _NARROW for operand in value.args[1].fields)


def _types(expr: Any) -> set[str]:
    """The element type of each tensor that an expression is."""
    tensors = expr.ty.fields if isinstance(expr.ty, TupleType) else [expr.ty]
    return {str(tensor.dtype) for tensor in tensors}
