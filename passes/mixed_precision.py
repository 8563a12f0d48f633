"""Multiply in a 16-bit type and add up in float32."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tvm
from tvm import relax, tirx
from tvm_ffi import structural_map

from hybridc.compiler.errors import InputError, PassError
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    constant,
    operator,
    relax_functions,
    tidy,
    updated,
    with_attributes,
)
from hybridc.passes import _algorithms, _wide_weights
from hybridc.passes._constant_products import counted
from hybridc.passes._narrow_kernels import NarrowKernels

_WIDE = "float32"
_NARROW = ("bfloat16", "float16")
# The instruction set that converts float16.
_CONVERSIONS = "f16c"
# float16 weights whose largest is below have as many digits as subnormal numbers leave them: they
# are rounded by up to 2^-25, as others are by 2^-12 of themselves.
_LEAST = 2.0**-13
_PRODUCTS = ("nn.conv2d", "matmul")
# These choose or move elements: rounding before them gives the numbers of rounding behind them.
_MOVES = frozenset(
    {
        "broadcast_to",
        "concat",
        "expand_dims",
        "flatten",
        "nn.max_pool2d",
        "permute_dims",
        "reshape",
        "split",
        "squeeze",
        "strided_slice",
    }
)


@dataclass(frozen=True)
class MixedPrecision(Pass):
    """Multiply in a 16-bit type and add up in float32.

    Convolutions and matrix products take operands of `dtype` and add up in float32; on GPUs also
    those with weights that `quantize-weights` has packed, which are unpacked to `dtype`.  An
    operand is stored in that type only, and its other readers widen it.  Everything else is
    computed in float32: normalisations, softmax, reductions, residual sums.  The model's inputs
    and outputs keep their types.

    `dtype` is bfloat16, which has the range of float32, or float16, which has three more bits but
    ends at 65504: an activation beyond that becomes an infinity, and products with weights beyond
    it, or all below 2^-13, stay in float32.

    On CPUs that multiply the type no faster than float32, only weights are rounded, of products
    that do not wait for them: the file holds these in 16 bits, and all else is computed in float32,
    but for products that do wait.  Functions without such weights are lowered as elsewhere; with
    `in_kernel` all are, which takes less memory.
    """

    dtype: str = "bfloat16"
    in_kernel: bool = False

    def requires(self, module: IRModule) -> None:
        """The type is one that products can take."""
        if self.dtype not in _NARROW:
            raise PassError(f"dtype is {' or '.join(_NARROW)}, not {self.dtype!r}")

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every function of the graph that holds a product."""
        cpu = context.target.gpu is None
        if cpu and self.dtype == "float16" and _CONVERSIONS not in context.target.features:
            raise InputError(
                f"float16 needs a CPU that converts it (F16C), which {context.target.cpu} has not; "
                "bfloat16 (--dtype bf16) runs everywhere"
            )
        kernels = NarrowKernels(self.dtype, module, relax.BlockBuilder(module), context.target)
        near = _algorithms.stay_near(module, context.target)
        widener = _wide_weights.Widener(context.compressed, near, context.target)
        changed: dict[Any, Any] = {}
        taken: Counter[str] = Counter()
        for variable, function in relax_functions(module):
            work = _Function(
                self.dtype, function, kernels, widener if cpu and not self.in_kernel else None
            )
            narrowed = work.rewritten()
            if narrowed is not function:
                changed[variable] = narrowed
                taken.update(work.taken)
        if not changed:
            return module
        context.lowered |= taken
        context.notes.append(f"operands in {self.dtype}, sums in float32: {counted(taken)}")
        return tidy(updated(module, {**kernels.made(), **changed}))


@dataclass
class _Function:
    """One function, and for its variables that are kept narrow, those that hold them so.

    `rounded` are the weights, in float32, of products of which nothing else is narrow.
    """

    dtype: str
    function: Expr
    kernels: NarrowKernels
    widener: _wide_weights.Widener | None = None
    rounded: dict[Expr, Expr] = field(default_factory=dict[Expr, Expr])
    wanted: set[Expr] = field(default_factory=set[Expr])
    narrow: dict[Expr, Expr] = field(default_factory=dict[Expr, Expr])
    values: dict[Expr, Expr] = field(default_factory=dict[Expr, Expr])
    taken: Counter[str] = field(default_factory=Counter[str])
    builder: Any = field(default_factory=relax.BlockBuilder)

    def rewritten(self) -> Expr:
        """The function on narrow operands; the one given where there is nothing to do."""
        blocks = list(self.function.body.blocks)
        if len(blocks) != 1 or not isinstance(blocks[0], relax.DataflowBlock):
            return self.function
        bindings = list(blocks[0].bindings)
        self._round(bindings)
        if not self.rounded and not any(map(self._multiplied, bindings)):
            return self.function
        self.values = {binding.var: binding.value for binding in bindings}
        for binding in reversed(bindings):
            self.wanted.update(_variables(self._multiplied(binding)))
            if self._moved(binding):
                self.wanted.update(_variables(_moved_tensors(binding.value)))
        heads = [self._hold(param) for param in self.function.params if param in self.wanted]
        body = [new for binding in bindings for new in self._binding(binding)]
        return relax.Function(
            self.function.params,
            relax.SeqExpr([relax.DataflowBlock([*heads, *body])], self.function.body.body),
            self.function.ret_ty,
            self.function.is_pure,
            self.function.attrs,
        )

    def _round(self, bindings: list[Any]) -> None:
        """Find the products of which the weights alone are rounded."""
        for binding in bindings:
            value = binding.value
            if self.widener is None or not _is_product(value):
                continue
            weight = value.args[1]
            if not isinstance(weight, tvm.ir.GenericConst) or not all(map(self._holds, value.args)):
                continue
            narrow = constant(weight.value.numpy(), self.dtype).value.numpy()
            wide = self.widener.widened(_wide_weights.Product(value, narrow))
            if wide is not None:
                self.rounded[binding.var] = constant(wide, _WIDE)

    def _multiplied(self, binding: Any) -> list[Expr]:
        """The operands of a product that are narrow; nothing where there are none."""
        value = binding.value
        if binding.var in self.rounded or (self.rounded and not _has_weights(value)):
            return []
        if not _is_product(value):
            return self.kernels.operands(value)
        return list(value.args) if all(map(self._holds, value.args)) else []

    def _holds(self, operand: Expr) -> bool:
        """Whether the narrow type has the digits and the range that a constant needs."""
        if self.dtype != "float16" or not isinstance(operand, tvm.ir.GenericConst):
            return True
        array = np.abs(operand.value.numpy())
        largest = array.max(initial=0)
        return bool(largest == 0 or _LEAST <= largest <= np.finfo(np.float16).max)

    def _moved(self, binding: Any) -> bool:
        """Whether a binding only moves what is wanted narrow; the function's results are not.

        Of several results together only those of a move are kept narrow.
        """
        var, value = binding.var, binding.value
        if not isinstance(var, relax.DataflowVar) or var not in self.wanted:
            return False
        if isinstance(value, tvm.ir.TupleGetItem):
            var, value = value.tuple_value, self.values.get(value.tuple_value)
        return isinstance(var, relax.DataflowVar) and operator(value) in _MOVES

    def _binding(self, binding: Any) -> Iterator[Any]:
        var, value = binding.var, binding.value
        if self._moved(binding) or self._item(value):
            yield self._bind(var, self._over_narrow(value))
            return
        operands = [self._operand(arg) for arg in self._multiplied(binding)]
        if var in self.rounded:
            self.taken[operator(value)] += 1
            data = structural_map(value.args[0], (tvm.ir.Var, self._widened))
            call = tvm.ir.Call(value.op, [data, self.rounded[var]], value.attrs, value.ty_args)
            yield relax.VarBinding(var, call)
        elif operands:
            called = operator(value)
            self.taken[self.kernels.name(value) if called == "call_tir" else called] += 1
            if called == "call_tir":
                yield relax.VarBinding(var, self.kernels.narrowed(value, operands))
            elif called == "matmul":
                yield relax.VarBinding(var, relax.op.matmul(*operands, out_dtype=_WIDE))
            else:
                yield relax.VarBinding(var, with_attributes(value, operands, out_dtype=_WIDE))
        else:
            yield relax.VarBinding(var, structural_map(value, (tvm.ir.Var, self._widened)))
        if var in self.wanted:
            yield self._hold(var)

    def _item(self, value: Expr) -> bool:
        return isinstance(value, tvm.ir.TupleGetItem) and value.tuple_value in self.narrow

    def _hold(self, var: Expr) -> Any:
        return self._bind(var, relax.op.astype(var, self.dtype))

    def _bind(self, var: Expr, value: Expr) -> Any:
        """Bind what stands for `var` to a narrow value."""
        value = self.builder.normalize(value)
        self.narrow[var] = relax.DataflowVar(f"{var.name}_{self.dtype}", value.ty)
        return relax.VarBinding(self.narrow[var], value)

    def _over_narrow(self, value: Expr) -> Expr:
        """A move of narrow tensors."""
        if isinstance(value, tvm.ir.TupleGetItem):
            return tvm.ir.TupleGetItem(self.narrow[value.tuple_value], value.index)
        first = value.args[0]
        if isinstance(first, tvm.ir.Tuple):
            first = tvm.ir.Tuple([self._operand(part) for part in first.fields])
        else:
            first = self._operand(first)
        return tvm.ir.Call(value.op, [first, *value.args[1:]], value.attrs, value.ty_args)

    def _operand(self, expr: Expr) -> Expr:
        """A variable or a constant in the narrow type."""
        if isinstance(expr, tvm.ir.GenericConst):
            return constant(expr.value.numpy(), self.dtype)
        return self.narrow[expr]

    def _widened(self, var: Expr) -> Expr:
        """What reads a variable that is kept narrow; each reader widens it for itself."""
        if isinstance(var, relax.DataflowVar) and var in self.narrow:
            return relax.op.astype(self.narrow[var], _WIDE)
        return var


def _is_product(value: Expr) -> bool:
    """Whether this multiplies float32 tensors of known shape, in a way that packing takes."""
    name = operator(value)
    if name not in _PRODUCTS or not all(map(_plain, (value, *value.args))):
        return False
    if name == "matmul":
        return all(arg.ty.ndim > 1 for arg in value.args)
    constant_weight = isinstance(value.args[1], tvm.ir.GenericConst)
    return constant_weight and str(value.attrs.data_layout) == "NHWC"


def _has_weights(value: Expr) -> bool:
    """Whether a product is one with a constant."""
    return _is_product(value) and any(isinstance(arg, tvm.ir.GenericConst) for arg in value.args)


def _plain(expr: Expr) -> bool:
    known = expr.ty.shape is not None and all(
        not isinstance(extent, tirx.IntImm) or extent > 0 for extent in expr.ty.shape.values
    )
    return known and str(expr.ty.dtype) == _WIDE


def _moved_tensors(value: Expr) -> list[Expr]:
    """What a move takes its elements from."""
    if isinstance(value, tvm.ir.TupleGetItem):
        return [value.tuple_value]
    first = value.args[0]
    return list(first.fields) if isinstance(first, tvm.ir.Tuple) else [first]


def _variables(operands: list[Expr]) -> list[Expr]:
    return [operand for operand in operands if isinstance(operand, relax.Var)]
