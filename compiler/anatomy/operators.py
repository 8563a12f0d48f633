"""What the operators of an imported model compute and move, without lowering any of them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler.anatomy.work import (
    ATTENTION,
    CONVOLUTION,
    ELEMENTWISE,
    OTHER,
    PRODUCT,
    RECURRENCE,
    Operator,
)
from hybridc.compiler.delegation.regions import PREFIX
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import Expr, bindings_of, graph_of, operator, relax_functions
from hybridc.compiler.kernels import kernel_cost, recurrence

_VIEWS = {"reshape", "squeeze", "expand_dims", "flatten", "nn.batch_flatten"}
# What they are asked for is all that they read of a table, and they compute nothing.
_LOOKUPS = {"take", "gather_elements", "gather_nd"}
# Of the shape of their operand, but each element needs others of it.
_WHOLE = {
    *("nn.softmax", "nn.log_softmax", "nn.layer_norm", "nn.group_norm", "nn.instance_norm"),
    *("nn.rms_norm", "cumsum", "cumprod", "sort", "argsort", "flip", "roll", "permute_dims"),
}


def operators(module: IRModule) -> list[Operator]:
    """Every operator that computes something at run time; what constants decide is left out.

    Branches are left out too.  Sizes that are not static count as 1.
    """
    return [
        found
        for _, function in relax_functions(module)
        for found in _Reader(module, graph_of(function).uses).read(function)
    ]


def weights(module: IRModule) -> tuple[int, int]:
    """Constants that are learnt, each once: their number of elements, and their bytes."""
    seen: dict[int, Any] = {}

    def visit(expr: Expr) -> None:
        if isinstance(expr, tvm.ir.GenericConst):
            seen[expr.__hash__()] = expr

    for _, function in relax_functions(module):
        relax.analysis.post_order_visit(function, visit)
    sizes = [(_elements(each), _bytes(each)) for each in seen.values() if _learnt(each)]
    return sum(count for count, _ in sizes), sum(size for _, size in sizes)


@dataclass
class _Reader:
    """Walks the bindings of a function, knowing which variables are constant by then."""

    module: IRModule
    uses: Mapping[Expr, int]
    constant: set[Expr] = field(default_factory=set[Expr])
    made: set[Expr] = field(default_factory=set[Expr])  # what an operator leaves in memory
    numbers: dict[int, int] = field(default_factory=dict[int, int])

    def read(self, function: Expr) -> Iterator[Operator]:
        for binding in bindings_of(function):
            if not isinstance(binding, relax.VarBinding):
                continue
            value, variable = binding.value, binding.var
            if not isinstance(value, tvm.ir.Call):
                operands = _tensors([value]) if isinstance(value, relax.Tuple) else []
                if isinstance(value, tvm.ir.GenericConst) or self._fixed(operands):
                    self.constant.add(variable)
                continue
            operands = _tensors(value.args)
            if self._fixed(operands):
                self.constant.add(variable)
            else:
                yield self._operator(value, variable, operands)
                self.made.add(variable)

    def _fixed(self, operands: list[Expr]) -> bool:
        return bool(operands) and all(map(self._is_constant, operands))

    def _is_constant(self, expr: Expr) -> bool:
        return isinstance(expr, tvm.ir.GenericConst) or expr in self.constant

    def _operator(self, call: Expr, variable: Expr, operands: list[Expr]) -> Operator:
        name = self._name(call)
        held = [each for each in operands if self._is_constant(each)]
        moving = [each for each in operands if not self._is_constant(each)]
        kind, flops = self._of_kernel(call, name) or _cost(name, operands, variable)
        weights, alone = sum(map(_bytes, held)), sum(map(_bytes, [*moving, variable]))
        if name in _LOOKUPS:
            weights = min(weights, _bytes(variable))
        data = alone
        largest = max(moving, key=_bytes, default=None)
        if name in _VIEWS or name in ("memory.view", "shape_of"):
            return Operator(name, kind, 0, 0, 0, 0)
        if kind == ELEMENTWISE and largest in self.made and self.uses[largest] <= 1:
            data = sum(_bytes(each) for each in moving if each is not largest)
        learnt = max((each for each in held if _learnt(each)), key=_bytes, default=None)
        shared = self._number(learnt) if learnt is not None else 0
        dynamic = kind == PRODUCT and not held
        return Operator(name, kind, flops, weights, data, alone, shared, dynamic)

    def _of_kernel(self, call: Expr, name: str) -> tuple[str, int] | None:
        """The kind and FLOPs of a recurrent layer, which the frontends write as a kernel."""
        if operator(call) != "call_tir" or not name.startswith(recurrence.NAME):
            return None
        return RECURRENCE, kernel_cost.flops(self.module[call.args[0]])

    def _number(self, weight: Expr) -> int:
        return self.numbers.setdefault(weight.__hash__(), len(self.numbers) + 1)

    def _name(self, call: Expr) -> str:
        found = operator(call)
        if found == "call_dps_packed":
            return str(call.args[0].global_symbol).removeprefix(PREFIX)
        if found == "call_tir" or not found:
            return str(getattr(call.args[0] if found else call.op, "name_hint", "call"))
        return found


def _cost(name: str, operands: list[Expr], variable: Expr) -> tuple[str, int]:
    """The kind, and FLOPs: a multiply-add counts two, anything else one for each element."""
    shapes = [_shape(each) for each in operands]
    out = _elements(variable)
    if name.startswith("nn.conv") and len(shapes) > 1:
        # A weight is [outputs, inputs / groups, *kernel]; the two are exchanged where transposed.
        meets = prod(shapes[0]) if "transpose" in name else out
        return CONVOLUTION, 2 * meets * prod(shapes[1][1:])
    if name in ("matmul", "nn.dense") and shapes and shapes[0]:
        return PRODUCT, 2 * out * shapes[0][-1]
    if name.startswith("nn.attention") and len(shapes) > 2:
        # Queries are [batch, rows, heads, size]; both products meet every key.
        return ATTENTION, 4 * prod(shapes[0]) * shapes[1][1]
    largest = max(map(prod, shapes), default=0)
    if name in _VIEWS or name in _LOOKUPS:
        return OTHER, 0
    if name not in _WHOLE and out >= largest > 0:
        return ELEMENTWISE, out
    return OTHER, max(out, largest) if name != "permute_dims" else 0


def _tensors(args: Any) -> list[Expr]:
    """The tensors among the arguments of a call, those in tuples too."""
    found: list[Expr] = []
    for arg in args:
        if isinstance(arg, relax.Tuple):
            found += _tensors(arg.fields)
        elif isinstance(getattr(arg, "ty", None), relax.TensorType):
            found.append(arg)
    return found


def _shape(expr: Expr) -> tuple[int, ...]:
    values = getattr(getattr(expr.ty, "shape", None), "values", None)
    if values is None:
        return ()
    return tuple(int(v) if isinstance(v, tvm.tirx.IntImm) else 1 for v in values)


def _elements(expr: Expr) -> int:
    if isinstance(expr.ty, relax.TupleType):
        return max((prod(_sizes(kind)) for kind in expr.ty.fields), default=0)
    return prod(_shape(expr)) if isinstance(expr.ty, relax.TensorType) else 0


def _sizes(kind: Any) -> tuple[int, ...]:
    values = getattr(getattr(kind, "shape", None), "values", None) or ()
    return tuple(int(v) if isinstance(v, tvm.tirx.IntImm) else 1 for v in values)


def _bytes(expr: Expr) -> int:
    kinds = expr.ty.fields if isinstance(expr.ty, relax.TupleType) else [expr.ty]
    return sum(prod(_sizes(k)) * _width(k) for k in kinds if isinstance(k, relax.TensorType))


def _width(kind: Any) -> int:
    name = str(kind.dtype)
    return 2 if name == "bfloat16" else np.dtype(name or "float32").itemsize


def _learnt(expr: Expr) -> bool:
    return str(getattr(expr.ty, "dtype", "")) not in ("int64", "bool")
