"""Store in 16 bits what is only added to a product of 16 bits."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.s_tir import SBlock, Schedule
from tvm_ffi import structural_walk

from hybridc.compiler.errors import PassError
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
from hybridc.passes._narrow_storage import is_product, on_narrow

_WIDE = "float32"
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True)
class NarrowResiduals(Pass):
    """Store in 16 bits what is only added to a product of 16 bits.

    Where two branches meet, the epilogue of one branch's product adds the result of the other.
    In 16 bits (`dtype`) that is half the bytes, for one more rounding, as in a network that is of
    that type throughout.  Values that a normalisation or another reduction reads stay float32, and
    so do products of float32 and results of the model.

    With `reduced`, for GPUs, whose kernels beside products are bound by memory, whatever such a
    product's kernel computes for others but products of float32 is stored so, the sums that a
    normalisation reads too.  Transformers of 12 layers then are as far from fp32 as torch's own in
    that type, or nearer: by 0.5e-3 to 5e-3 of the result in float16 (torch 0.5e-3 to 6e-3), where
    it was 0.1e-3 to 4.5e-3.
    """

    dtype: str = "bfloat16"
    reduced: bool = False

    def requires(self, module: IRModule) -> None:
        """The type is one that products can take."""
        if self.dtype not in _PRECISIONS:
            raise PassError(f"dtype is {' or '.join(_PRECISIONS)}, not {self.dtype!r}")

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite the kernels that `fuse` made, where a residual lies between them in memory."""
        builder = relax.BlockBuilder(module)
        changed: dict[Any, Any] = {}
        finder = _Finder(module, self.dtype, self.reduced)
        for variable, function in relax_functions(module):
            if residuals := set(finder.residuals(function)):
                work = _Narrower(module, builder, residuals, self.dtype)
                changed[variable] = work.rewritten(function)
        if not changed:
            return module
        functions = builder.get().functions_items()
        kernels = {var: func for var, func in functions if isinstance(func, tirx.PrimFunc)}
        return relax.transform.DeadCodeElimination()(tidy(updated(module, {**kernels, **changed})))


@dataclass(frozen=True)
class _Finder:
    """Finds what may be stored in a type of 16 bits."""

    module: IRModule
    dtype: str
    reduced: bool

    def residuals(self, function: Any) -> Iterator[Any]:
        """The variables that one kernel computes and that others only read behind their products.

        If reductions may read them too, then those that no product of float32 reads.
        """
        readers: dict[Any, list[Any]] = defaultdict(list)
        for binding in bindings_of(function):
            for used in relax.analysis.free_vars(binding.value):
                readers[used].append(binding.value)
        for binding in bindings_of(function):
            var, func = binding.var, self._multiplying(binding.value)
            if func is None or not isinstance(var, relax.DataflowVar) or not readers[var]:
                continue
            wide = str(getattr(var.ty, "dtype", "")) == _WIDE
            summed = _reads(func, func.params[-1]) or (not self.reduced and _sums(func))
            if wide and not summed and all(self._rounds(each, var) for each in readers[var]):
                yield var

    def _multiplying(self, value: Any) -> PrimFunc | None:
        """The loop nest that a binding calls, if it multiplies in the narrow type."""
        func = self._called(value)
        if func is None:
            return None
        narrow = kernel_cost.precision(func) == _PRECISIONS[self.dtype] or self._widens(func)
        return func if narrow else None

    def _called(self, value: Any) -> PrimFunc | None:
        """The loop nest that a binding calls, of sizes that are known."""
        plain = operator(value) == "call_tir" and len(value.args) == 2
        return self.module[value.args[0]] if plain else None

    def _widens(self, func: PrimFunc) -> bool:
        """Whether a loop nest multiplies in float32 what it reads in the narrow type."""
        return any(kinds_in(func)) and str(func.params[0].dtype) == self.dtype

    def _rounds(self, value: Any, var: Any) -> bool:
        """Whether a kernel may read a variable rounded: it multiplies none of it in float32."""
        if self._combines(value, var):
            return True
        func = self._called(value)
        return self.reduced and func is not None and not is_product(func)

    def _combines(self, value: Any, var: Any) -> bool:
        """Whether a kernel with a product reads a variable in its epilogue alone."""
        func = self._multiplying(value)
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


def _sums(func: PrimFunc) -> Any:
    """The block that sums up in a loop nest's result itself, where one does."""
    found: list[Any] = []
    structural_walk(func.body, (SBlock, found.append))
    written = [b for b in found if any(r.source.same_as(func.params[-1]) for r in b.writes)]
    return next((block for block in written if _reduces(block)), None)


def _summed_apart(func: PrimFunc) -> PrimFunc:
    """The loop nest with sums that are stored once they are complete, so as they are rounded."""
    block = _sums(func)
    if block is None:
        return func
    schedule = Schedule(func)
    schedule.cache_write(schedule.get_sblock(block.name_hint), 0, "global")
    return schedule.mod["main"]


def _reduces(block: Any) -> bool:
    return any(int(axis.iter_type) == tirx.IterVar.CommReduce for axis in block.iter_vars)


@dataclass(frozen=True)
class _Narrower:
    """Rewrites the calls of kernels that write or read what is kept narrow."""

    module: IRModule
    builder: Any
    residuals: set[Any]
    dtype: str

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
        func = _summed_apart(func) if written else func
        narrow = [func.params[i] for i, field in enumerate(fields) if field in held]
        ty = value.ty
        if written:
            narrow.append(func.params[-1])
            ty = relax.TensorType(ty.shape, self.dtype)
            held[var] = relax.DataflowVar(f"{var.name}_{self.dtype}", ty)
        kernel = self.builder.add_func(on_narrow(func, narrow, self.dtype), value.args[0].name_hint)
        arguments = tvm.ir.Tuple([held.get(field, field) for field in fields])
        call = relax.call_tir(kernel, arguments, ty)
        return relax.VarBinding(held.get(var, var), call)
