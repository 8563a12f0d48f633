"""What LLVM inlines in the code of a model."""

from typing import Any

import tvm

from hybridc.compiler.target import Target

# What an instruction counts, where LLVM inlines functions of up to 225; 5 is its own.  It would
# take most kernels into the functions that call them all, twice, and then longer than in proportion
# to their length: 37 s for 262 kernels of 5 us instead of 8 s (Emerald Rapids).  That was twice the
# code, and no faster: calls of 6 us, of 9 kernels, took 0.998 as long without.
_NONE = "-inline-instr-cost:int=100"


def target_for(target: Target) -> Any:
    """The TVM target that generates a model's code, in which kernels are not inlined.

    What is to be inlined always, such as an instruction that TVM does not know, still is.
    """
    if target.gpu is not None:
        return target.tvm
    return tvm.target.Target({**target.tvm.export(), "cl-opt": [_NONE]})
