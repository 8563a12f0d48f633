"""Reshapes whose result leaves the dataflow, as views: TVM makes them only of what stays within."""

from collections import Counter
from typing import Any

from tvm import relax, tirx

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import bindings_of, operator, relax_functions, updated, with_blocks
from hybridc.passes._views import reshapes


def viewed(module: IRModule) -> IRModule:
    """The module with a view for each such kernel that reads what nobody else does.

    What it reads has to be another kernel's result: an input's memory is the caller's, a weight's
    the model's, and no two results are one memory.
    """
    changed: dict[Any, Any] = {}
    for variable, function in relax_functions(module):
        free = _unshared(function)
        views = {
            binding.var: relax.op.reshape(source, binding.var.ty.shape)
            for binding in bindings_of(function)
            if not isinstance(binding.var, relax.DataflowVar)
            and (source := _reshaped(binding.value, module)) in free
        }
        if views:
            changed[variable] = relax.transform.Normalize()(
                updated(module, {variable: _with(function, views)})
            )[variable]
    if not changed:
        return module
    # The kernels that nobody calls any more go.
    made: IRModule = relax.transform.DeadCodeElimination()(updated(module, changed))
    return made


def _unshared(function: Any) -> set[Any]:
    """The results of kernels, of fixed sizes, that are read once."""
    bindings = list(bindings_of(function))
    uses: Counter[Any] = Counter()
    for value in [*(binding.value for binding in bindings), function.body.body]:
        uses.update(relax.analysis.free_vars(value))
    return {b.var for b in bindings if uses[b.var] == 1 and operator(b.value) == "call_tir"}


def _reshaped(value: Any, module: IRModule) -> Any:
    """What a kernel reads of which it changes only the shape, or None."""
    if operator(value) != "call_tir" or not isinstance(value.ty, relax.TensorType):
        return None
    operands = value.args[1].fields
    fixed = all(isinstance(extent, tirx.IntImm) for extent in value.ty.shape.values)
    alone = fixed and len(operands) == 1 and len(value.args) == 2
    if not alone or str(operands[0].ty.dtype) != str(value.ty.dtype):
        return None
    return operands[0] if reshapes(module[value.args[0]]) else None


def _with(function: Any, values: dict[Any, Any]) -> Any:
    """The function with other values for some of its variables."""
    blocks: list[Any] = []
    for block in function.body.blocks:
        bindings = [
            relax.VarBinding(b.var, values[b.var]) if b.var in values else b for b in block.bindings
        ]
        blocks.append(type(block)(bindings))
    return with_blocks(function, blocks)
