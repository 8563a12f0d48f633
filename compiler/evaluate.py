"""Run a Relax module as it stands, at any stage of a pipeline: the oracle's other half.

Slow and simple on purpose: TVM's own default lowering, nothing of ours, one function at a time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.model import Array


def evaluate(module: IRModule, inputs: Sequence[Array], entry: str = "main") -> list[Array]:
    """Compute the outputs of `entry` for `inputs`, given in the order of its parameters."""
    import tvm
    from tvm import relax

    executable = tvm.compile(module, target=tvm.target.Target("llvm"))
    machine = relax.VirtualMachine(executable, tvm.cpu())
    result = machine[entry](*(tvm.runtime.tensor(np.asarray(x)) for x in inputs))
    return [np.array(tensor.numpy()) for tensor in flatten(result)]


def flatten(result: Any) -> list[Any]:
    """The tensors of a Relax result, which is one tensor or a nest of tuples of them."""
    if hasattr(result, "numpy"):
        return [result]
    return [tensor for part in result for tensor in flatten(part)]
