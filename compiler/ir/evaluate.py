"""Run a Relax module as it stands, at any stage of a pipeline: the oracle's other half.

Slow and simple on purpose: TVM's own default lowering, one function at a time.  Of ours is the
lowering of bfloat16 alone, where kernels are scheduled: TVM's takes none of its instructions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.model import Array, Feed, Model
from hybridc.compiler.runtime import carriers

# LLVM's.  What runs once takes longer to compile than to run: at TVM's usual third level up to
# three times as long as at the first, and it runs no faster; without optimisations it runs five
# times as long.
_OPTIMISATION = 1
# How scheduled kernels call an instruction by its name.
_NATIVE = frozenset({"tirx.call_extern", "tirx.call_llvm_pure_intrin"})


def evaluate(
    module: IRModule, inputs: Sequence[Array], entry: str = "main", *, native: bool = False
) -> list[Array]:
    """Compute the outputs of `entry` for `inputs`, given in the order of its parameters.

    By instructions of this CPU, where `native`: without these products of float16 take ten times
    as long.
    """
    return _run(module, inputs, entry, native=native)


def evaluate_model(model: Model, module: IRModule, feed: Feed) -> list[Any]:
    """Compute the outputs of a model by `module`, what it has become; its regions are run too."""
    from hybridc.compiler.delegation import regions
    from hybridc.compiler.delegation.region_runtime import RegionSet

    names = [region.name for region in model.regions]
    regions.announce(names)
    parts = RegionSet(model.regions, 1)
    operands = [parts.take(spec, feed[spec.name]) for spec in model.inputs]
    extra = [parts.functions()] if names else []
    results = _run(regions.lift(module, names), operands, "main", extra)
    if len(results) != len(model.outputs):
        return results  # whoever compares says so
    return [parts.give(spec, array) for spec, array in zip(model.outputs, results, strict=True)]


def _run(
    module: IRModule,
    inputs: Sequence[Array],
    entry: str,
    extra: Sequence[Any] = (),
    *,
    native: bool = False,
) -> list[Array]:
    result = machine(module, native)[entry](*map(tensor, inputs), *extra)
    return [np.array(found.numpy()) for found in flatten(result)]


def tensor(array: Array) -> Any:
    """An array as TVM takes it."""
    import tvm

    return tvm.runtime.tensor(carriers.carried(np.asarray(array)))


def machine(module: IRModule, native: bool = False) -> Any:
    """The module as functions to call, by name, with TVM's tensors."""
    import tvm
    from tvm import relax

    from hybridc.compiler import target
    from hybridc.compiler.ir.sequences import PLAIN_PIPELINE
    from hybridc.compiler.kernels import bfloat16_lowering

    host = target.parse("cpu")
    module = bfloat16_lowering.lower(module, host, bfloat16_lowering.takes_bits)
    # Instructions of this CPU's own are none of a CPU in general.
    plain = {"kind": "llvm", "opt-level": _OPTIMISATION}
    chosen = host.tvm if native or _names_instructions(module) else tvm.target.Target(plain)
    executable = tvm.compile(module, target=chosen, tir_pipeline=PLAIN_PIPELINE)
    return relax.VirtualMachine(executable, tvm.cpu())


def _names_instructions(module: IRModule) -> bool:
    """Whether a loop nest calls what LLVM has for some CPUs alone."""
    from tvm import tirx
    from tvm.ir.expr import Call
    from tvm_ffi import structural_walk

    from hybridc.compiler.kernels import bfloat16

    found: list[str] = []
    for _, func in module.functions_items():
        if isinstance(func, tirx.PrimFunc):
            structural_walk(
                func.body, (Call, lambda call: found.append(str(getattr(call.op, "name", ""))))
            )
    return not {*_NATIVE, bfloat16.OPERATOR}.isdisjoint(found)


def flatten(result: Any) -> list[Any]:
    """The tensors of a Relax result, which is one tensor or a nest of tuples of them."""
    if hasattr(result, "numpy"):
        return [result]
    return [tensor for part in result for tensor in flatten(part)]
