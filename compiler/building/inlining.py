"""What LLVM inlines in the code of a model."""

from typing import Any

import tvm

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import bindings_of
from hybridc.compiler.target import Target

# Calls of kernels in one function, from which on they stay calls.  LLVM takes most of them into the
# function that makes them, twice, and then longer than in proportion to its length: 37 s for 262
# kernels of 5 us instead of 8 s (Emerald Rapids), and twice the code, which was no faster.
_MANY = 64
# What an instruction counts, where LLVM inlines functions of up to 225; 5 is its own.
_NONE = "-inline-instr-cost:int=100"


def target_for(module: IRModule, target: Target) -> Any:
    """The TVM target that generates a module's code, in which many kernels are not inlined.

    What is to be inlined always, such as an instruction that TVM does not know, still is.
    """
    if target.gpu is not None or _calls(module["main"]) <= _MANY:
        return target.tvm
    return tvm.target.Target({**target.tvm.export(), "cl-opt": [_NONE]})


def _calls(main: Any) -> int:
    called = [getattr(binding.value, "op", None) for binding in bindings_of(main)]
    return sum(isinstance(op, tvm.ir.GlobalVar) for op in called)
