"""Compute once what is computed several times, and keep equal constants once."""

from dataclasses import dataclass

import numpy as np
import tvm
from blake3 import blake3
from tvm import relax

from hybridc.compiler import tensors
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.rewrite import Expr, Graph, rewrite, tidy, unless_same


@dataclass(frozen=True)
class EliminateCommonSubexpressions(Pass):
    """Merge equal constants, and equal operators on equal operands."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Share constants, then leave the operators to TVM's own elimination."""
        shared = rewrite(module, _Sharing().share)
        return unless_same(shared, tidy(relax.transform.EliminateCommonSubexpr()(shared)))


class _Sharing:
    """Remembers the first constant of each content, found by hash, never compared in full."""

    def __init__(self) -> None:
        self._first: dict[tuple[str, str, str], Expr] = {}

    def share(self, value: Expr, graph: Graph) -> Expr | None:
        """The call with its constants replaced by the first ones that equal them."""
        if not isinstance(value, tvm.ir.Call):
            return None
        operands = [self._canonical(operand) for operand in value.args]
        if all(new.same_as(old) for new, old in zip(operands, value.args, strict=True)):
            return None
        return tvm.ir.Call(value.op, operands, value.attrs, value.ty_args)

    def _canonical(self, operand: Expr) -> Expr:
        if not isinstance(operand, tvm.ir.GenericConst):
            return operand
        array = tensors.view(operand.value)
        content = array.reshape(-1).view(np.uint8).data
        key = str(array.dtype), str(array.shape), blake3(content).hexdigest()
        return self._first.setdefault(key, operand)
