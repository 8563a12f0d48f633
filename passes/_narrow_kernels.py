"""Loop nests that multiply though the graph names no operator for them, on narrow operands."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import relax, tirx

from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.ir.rewrite import Expr, opened, operator, shape
from hybridc.compiler.kernels import bfloat16
from hybridc.compiler.kernels.attention.attention import attention, takes_dot_products
from hybridc.compiler.kernels.attention.attention_form import form_of, holds_attention
from hybridc.compiler.kernels.products import weight_only
from hybridc.compiler.kernels.tensor_expressions import kinds_in
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import group_quantization
from hybridc.compiler.target import CUDA, Target
from hybridc.passes._narrow_storage import on_narrow

# Queries, keys and values come first.
_OPERANDS = 3
# The largest of weights that float16 holds with all its digits, and what it rounds these by.
_LEAST, _LARGEST = 2.0**-13, 65504.0
_HALF_DIGIT = 2.0**-12


@dataclass(frozen=True)
class NarrowKernels:
    """The loop nests of a module that read narrow operands: attention, and packed weights."""

    dtype: str
    module: IRModule
    builder: Any
    target: Target

    def operands(self, value: Expr) -> list[Expr]:
        """What a call multiplies that may be narrow; nothing of one that is left as it is.

        Of attention these are queries, keys and values.  Packed weights are multiplied by such
        activations on GPUs; for CPUs there are instructions for none but float32.
        """
        if operator(value) != "call_tir":
            return []
        fields = list(value.args[1].fields)
        if holds_attention(self._of(value)):
            wide = all(str(field.ty.dtype) == "float32" for field in fields[:_OPERANDS])
            return fields[:_OPERANDS] if wide else []
        return fields[:1] if self._unpacks(value) else []

    def name(self, call: Expr) -> str:
        """What a call that has operands computes."""
        return "attention" if holds_attention(self._of(call)) else "matmul"

    def narrowed(self, call: Expr, operands: list[Expr]) -> Expr:
        """The call on narrow operands."""
        made = self._of_weights(call) if self._unpacks(call) else self._of_attention(call)
        var = self.builder.add_func(made, call.args[0].name_hint)
        arguments = [*operands, *call.args[1].fields[len(operands) :]]
        return relax.call_tir(var, arguments, call.ty)

    def made(self) -> dict[Any, Any]:
        """The loop nests as the module is to have them."""
        found = self.builder.get().functions_items()
        return {var: func for var, func in found if isinstance(func, tirx.PrimFunc)}

    def _of(self, call: Expr) -> PrimFunc:
        return self.module[call.args[0]]

    def _of_attention(self, call: Expr) -> PrimFunc:
        """The loop nest with products of pairs, where these are faster, or one that widens."""
        func = self._of(call)
        form, lanes = form_of(func), self.target.lanes()
        pairs = self.dtype == bfloat16.BFLOAT16 and self.target.faster("bf16") > 1.0
        if form is None or not pairs or takes_dot_products(form, lanes):
            return on_narrow(func, list(func.params)[:_OPERANDS], self.dtype)
        return attention(replace(form, dtype=self.dtype), lanes)

    def _unpacks(self, call: Expr) -> bool:
        if self.target.kind != CUDA or weight_only.KIND not in kinds_in(self._of(call)):
            return False
        integers, scales = _weights(call)
        return self.dtype != "float16" or _fit(scales, weight_only.bits_of(integers))

    def _of_weights(self, call: Expr) -> PrimFunc:
        x, columns = call.args[1].fields[0], shape(call)[-1]
        integers, scales = _weights(call)
        return weight_only.dense(
            opened(shape(x)),
            integers,
            scales,
            int(columns),
            weight_only.bits_of(integers),
            padded=False,
            dtype=self.dtype,
        )


def _weights(call: Expr) -> tuple[Array, Array]:
    """The integers and the scales of packed weights."""
    integers, scales = (field.value.numpy() for field in call.args[1].fields[1:])
    return integers, scales


def _fit(scales: Array, bits: int) -> bool:
    """Whether float16 holds weights: the largest, and scales with an error that is none to it."""
    wide, most = scales.astype(np.float32), group_quantization.LEVELS[bits]
    largest = float(wide.max()) * most
    if not _LEAST <= largest <= _LARGEST:
        return False
    lost = np.abs(wide.astype(np.float16).astype(np.float32) - wide).max() * most
    return bool(lost <= largest * _HALF_DIGIT)
