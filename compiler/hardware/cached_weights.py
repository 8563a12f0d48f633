"""Whether a model's weights are still in the caches when the model runs again.

The measured time of a kernel depends on it: where weights come from memory, a point that keeps
them apart from other traffic wins; where they lie in a cache, one that computes best.
"""

from dataclasses import replace
from math import prod
from typing import Any

import numpy as np
from tvm import relax
from tvm.ir import GenericConst

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.kernel_record import State
from hybridc.compiler.target import Target

# The share of the last cache that weights may fill; activations need room as well.
_STAYS = 0.5


def state(weights: int, target: Target) -> State:
    """How a model with so many bytes of weights leaves the caches to its kernels.

    `cold`: with the weights in memory, and only what the kernels before have written in caches.
    """
    fit = target.gpu is not None or weights <= _STAYS * target.l3
    return "warm" if fit else "cold"


def left_by(mode: State, target: Target) -> Target:
    """The target as kernels find it in a model that leaves the caches in the state `mode`."""
    return replace(target, near=mode == "warm")


def weight_bytes(module: IRModule) -> int:
    """Bytes of all constants of a module's graph."""
    sizes: list[int] = []

    def visit(expr: Any) -> None:
        if isinstance(expr, GenericConst) and hasattr(expr.value, "shape"):  # else a type, a device
            sizes.append(prod(expr.value.shape) * np.dtype(str(expr.value.dtype)).itemsize)

    for _, function in module.functions_items():
        if isinstance(function, relax.Function):
            relax.analysis.post_order_visit(function, visit)
    return sum(sizes)
