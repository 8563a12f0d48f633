"""Values whose expressions would grow too long where kernels that read them are fused."""

from collections import Counter
from typing import Any

from tvm.ir.expr import Call, TensorLoad
from tvm.s_tir import SBlock
from tvm_ffi import structural_walk

from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.ir.rewrite import bindings_of, operator

# TVM's kind of operators that are inlined, at most: injective ones.
_INLINED = 2
# Loads in the expression of a value that is read more than once, at most.  Of a chain in which each
# value decides, or gates, what becomes of itself every step doubles or trebles them.  What is
# stored instead is written and read once for all these operations.
_MOST = 8
# Functions that are in each other, at most: as many as fast-math makes vectors of.  Code for one
# more repeats its argument, a tanh five times (a chain of 11 took 29 s), or is for no vectors.
_DEEPEST = 3
_FUNCTIONS = frozenset(
    f"tirx.{name}"
    for name in (
        *("acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "erf", "exp", "log"),
        *("pow", "sigmoid", "sin", "sinh", "tan", "tanh"),
    )
)


def grown(module: IRModule, function: Any) -> set[Any]:
    """The variables whose expression is long and read by several loads of inlined kernels.

    So are those that would have one more function around them than may be in each other.  The
    kernels of `module` tell their `op_pattern`.
    """
    kernels = [
        (binding.var, module[binding.value.args[0]], list(binding.value.args[1].fields))
        for binding in bindings_of(function)
        if operator(binding.value) == "call_tir"
    ]
    inlined = [each for each in kernels if int(each[1].attrs["op_pattern"]) <= _INLINED]
    read: Counter[Any] = Counter()
    for _, kernel, operands in inlined:
        loads = Counter(load.source for load in _loads(kernel.body))
        for param, operand in zip(kernel.params, operands, strict=False):
            read[operand] += loads[param]
    found: set[Any] = set()
    sizes: dict[Any, int] = {}
    depths: dict[Any, int] = {}
    for var, kernel, operands in inlined:
        size = _loads_in(kernel, [sizes.get(operand, 1) for operand in operands])
        if size > _MOST and read[var] > 1:
            found.add(var)
        else:
            sizes[var] = size
        own = sum(_functions(block.body) for block in _blocks(kernel))
        deep = {each for each in operands if own and own + depths.get(each, 0) > _DEEPEST}
        found |= deep & depths.keys()
        inside = (depths.get(each, 0) for each in operands if each not in found)
        if depth := own + max(inside, default=0):
            depths[var] = depth
    return found


def _loads_in(kernel: PrimFunc, operands: list[int]) -> int:
    """The loads in the expression of a kernel's result, given those of its operands."""
    sizes = dict(zip(kernel.params, operands, strict=False))
    largest = 1
    for block in _blocks(kernel):
        largest = sum(sizes.get(load.source, 1) for load in _loads(block.body))
        sizes |= {region.source: largest for region in block.writes}
    return largest


def _functions(node: Any) -> int:
    names: list[str] = []
    structural_walk(node, (Call, lambda call: names.append(str(getattr(call.op, "name", "")))))
    return sum(name in _FUNCTIONS for name in names)


def _blocks(kernel: PrimFunc) -> list[Any]:
    found: list[Any] = []
    structural_walk(kernel.body, (SBlock, found.append))
    return [block for block in found if block.writes]


def _loads(node: Any) -> list[Any]:
    found: list[Any] = []
    structural_walk(node, (TensorLoad, found.append))
    return found
