"""Store in bfloat16 what is only added to a product in bfloat16."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.s_tir import SBlock
from tvm_ffi import structural_walk

from hybridc.compiler.interfaces import Context, IRModule, Pass, PrimFunc
from hybridc.compiler.ir.rewrite import (
    bindings_of,
    operator,
    relax_functions,
    tidy,
    updated,
    with_blocks,
)
from hybridc.compiler.kernels import kernel_cost
from hybridc.compiler.kernels.tensor_expressions import KERNEL, kinds_in
from hybridc.passes._narrow_storage import on_narrow

_NARROW, _WIDE = "bfloat16", "float32"


@dataclass(frozen=True)
class NarrowResiduals(Pass):
    """Store in bfloat16 what is only added to a product in bfloat16.

    Where two branches meet, the epilogue of one branch's product adds the result of the other.
    In bfloat16 that is half the bytes, for one more rounding, as in a network that is bfloat16
    throughout.  Values that a normalisation or another reduction reads stay float32, and so do
    products of float32 and results of the model.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the kernels that `fuse` made, where a residual lies between them in memory."""
        builder = relax.BlockBuilder(module)
        changed: dict[Any, Any] = {}
        for variable, function in relax_functions(module):
            if residuals := set(_residuals(module, function)):
                changed[variable] = _Narrower(module, builder, residuals).rewritten(function)
        if not changed:
            return module
        functions = builder.get().functions_items()
        kernels = {var: func for var, func in functions if isinstance(func, tirx.PrimFunc)}
        return relax.transform.DeadCodeElimination()(tidy(updated(module, {**kernels, **changed})))


def _residuals(module: IRModule, function: Any) -> Iterator[Any]:
    """The variables that one kernel computes and that others only read behind their products."""
    readers: dict[Any, list[Any]] = defaultdict(list)
    for binding in bindings_of(function):
        for used in relax.analysis.free_vars(binding.value):
            readers[used].append(binding.value)
    for binding in bindings_of(function):
        var, func = binding.var, _multiplying(module, binding.value)
        if func is None or not isinstance(var, relax.DataflowVar) or not readers[var]:
            continue
        wide = str(getattr(var.ty, "dtype", "")) == _WIDE and not _reads(func, func.params[-1])
        if wide and all(_combines(module, value, var) for value in readers[var]):
            yield var


def _multiplying(module: IRModule, value: Any) -> PrimFunc | None:
    """The loop nest that a binding calls, if it multiplies in the narrow type."""
    if operator(value) != "call_tir" or len(value.args) != 2:
        return None
    func = module[value.args[0]]
    narrow = kernel_cost.precision(func) == "bf16" or _widens(func)
    return func if narrow else None


def _widens(func: PrimFunc) -> bool:
    """Whether a loop nest multiplies in float32 what it reads in the narrow type."""
    return any(kinds_in(func)) and str(func.params[0].dtype) == _NARROW


def _combines(module: IRModule, value: Any, var: Any) -> bool:
    """Whether a kernel with a product reads a variable in its epilogue alone."""
    func = _multiplying(module, value)
    if func is None:
        return False
    fields = value.args[1].fields
    params = [func.params[i] for i, field in enumerate(fields) if field.same_as(var)]
    blocks = [block for param in params for block in _reads(func, param)]
    return bool(blocks) and not any(KERNEL in b.annotations or _reduces(b) for b in blocks)


def _reads(func: PrimFunc, param: Any) -> list[Any]:
    """The blocks that read a parameter."""
    found: list[Any] = []
    structural_walk(func.body, (SBlock, found.append))
    return [b for b in found if any(region.source.same_as(param) for region in b.reads)]


def _reduces(block: Any) -> bool:
    return any(int(axis.iter_type) == tirx.IterVar.CommReduce for axis in block.iter_vars)


@dataclass(frozen=True)
class _Narrower:
    """Rewrites the calls of kernels that write or read what is kept narrow."""

    module: IRModule
    builder: Any
    residuals: set[Any]

    def rewritten(self, function: Any) -> Any:
        """The function with every residual narrow."""
        held: dict[Any, Any] = {}
        blocks = [
            type(block)([self._binding(binding, held) for binding in block.bindings])
            for block in function.body.blocks
        ]
        return with_blocks(function, blocks)

    def _binding(self, binding: Any, held: dict[Any, Any]) -> Any:
        var, value = binding.var, binding.value
        written = var in self.residuals
        if not written and not any(used in held for used in relax.analysis.free_vars(value)):
            return binding
        func, fields = self.module[value.args[0]], value.args[1].fields
        narrow = [func.params[i] for i, field in enumerate(fields) if field in held]
        ty = value.ty
        if written:
            narrow.append(func.params[-1])
            ty = relax.TensorType(ty.shape, _NARROW)
            held[var] = relax.DataflowVar(f"{var.name}_{_NARROW}", ty)
        kernel = self.builder.add_func(on_narrow(func, narrow, _NARROW), value.args[0].name_hint)
        arguments = tvm.ir.Tuple([held.get(field, field) for field in fields])
        call = relax.call_tir(kernel, arguments, ty)
        return relax.VarBinding(held.get(var, var), call)
