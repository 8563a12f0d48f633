"""Small values that a fused kernel would compute again for each of many elements."""

from collections.abc import Iterator
from math import prod
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_walk

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import bindings_of, operator

# Elements of a result for each of what is broadcast to it, and of the whole result, from which on
# a kernel of its own pays: a sigmoid takes 1.4 cycles an element, the start of a kernel 5,000.
_TIMES, _LEAST = 8, 2**14
# Functions that take as long as tens of additions.
_FUNCTIONS = (
    *("cos", "cosh", "erf", "exp", "log", "pow", "rsqrt", "sigmoid", "sin", "sinh", "sqrt", "tan"),
    "tanh",
)
_CALLS = frozenset(f"tirx.{name}" for name in _FUNCTIONS)


def repeated(module: IRModule, function: Any) -> set[Any]:
    """The variables whose value takes long, and is read by a kernel of many more elements.

    The gate of squeeze-and-excite is one: a sigmoid for each channel that all pixels are multiplied
    with, and that would be computed for each pixel by a kernel of both.
    """
    found: set[Any] = set()
    long: dict[Any, int] = {}
    for binding in bindings_of(function):
        size = _size(binding.var)
        if operator(binding.value) != "call_tir" or not size:
            continue
        operands = list(_operands(binding.value))
        found |= {x for x in operands if x in long and _broadcasts(long[x], size)}
        if any(long.get(x) == size for x in operands) or _takes_long(module, binding.value):
            long[binding.var] = size
    return found


def _broadcasts(source: int, result: int) -> bool:
    return result >= max(_LEAST, _TIMES * source)


def _operands(value: Any) -> Iterator[Any]:
    return (field for field in value.args[1].fields if isinstance(field, relax.Var))


def _takes_long(module: IRModule, value: Any) -> bool:
    """Whether a kernel calls a function or divides for each element."""
    found: list[bool] = []

    def visit(call: Any) -> None:
        found.append(str(getattr(call.op, "name", "")) in _CALLS)

    body = module[value.args[0]].body
    structural_walk(body, (tvm.ir.Call, visit))
    structural_walk(body, (prim.Div, lambda each: found.append("float" in str(each.ty.dtype))))
    return any(found)


def _size(var: Any) -> int:
    """The elements of a tensor; 0 if it is none, or has open sizes."""
    values = getattr(getattr(var.ty, "shape", None), "values", None)
    if values is None or not all(isinstance(extent, tirx.IntImm) for extent in values):
        return 0
    return prod(int(extent) for extent in values)
