"""Arrays that TVM's lowering makes smaller than a schedule asked for, though functions are given
addresses within them: what lies behind the last of these addresses is cut off.

An array that only loads and stores reach may be cut to what they reach.
"""

from collections import Counter
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir.transform import Sequential
from tvm_ffi import structural_walk

from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.target import Target


def cut(module: IRModule, target: Target) -> list[str]:
    """The arrays of a scheduled module that are cut, with their sizes before and after."""
    kernels = {
        var: func for var, func in module.functions_items() if isinstance(func, tirx.PrimFunc)
    }
    of = s_tir.transform
    # As TVM's lowering begins (tvm/s_tir/pipeline.py); the last one cuts.
    begun = [
        tirx.transform.BindTarget(target.tvm),
        of.CanonicalizeLoop(),
        of.LowerCrossThreadReduction(),
        of.LowerInitBlock(),
        of.PlanAndUpdateBufferAllocationLocation(),
        of.ConvertBlocksToOpaque(),
        of.LiftThreadBinding(),
        of.ManifestSharedMemoryLocalStage(),
    ]
    whole = Sequential(begun)(tvm.IRModule(kernels))
    before, after = map(_arrays, (whole, of.CompactBufferAllocation()(whole)))
    return [
        f"{name}: {array} has {size} elements, and {left} when it is lowered"
        for name, arrays in before.items()
        for array, size, left in _smaller(arrays, after[name])
    ]


def cut_kernel(func: PrimFunc, target: Target) -> list[str]:
    """The same of one kernel."""
    return cut(tvm.IRModule({"main": func.with_attr("global_symbol", "main")}), target)


def _arrays(module: IRModule) -> dict[str, Counter[tuple[str, int]]]:
    return {
        var.name_hint: _addressed(func)
        for var, func in module.functions_items()
        if isinstance(func, tirx.PrimFunc)
    }


def _addressed(func: PrimFunc) -> Counter[tuple[str, int]]:
    """Arrays within the function addresses of which are taken, and their elements."""
    made: list[Any] = []
    taken: set[Any] = set()

    def call(node: Any) -> None:
        if str(getattr(node.op, "name", "")) == "tirx.address_of":
            taken.add(node.args[0].source)

    structural_walk(
        func.body,
        [
            (tirx.AllocBuffer, lambda node: made.append(node.buffer)),
            (s_tir.SBlock, lambda node: made.extend(node.alloc_buffers)),
            (tvm.ir.Call, call),
        ],
    )
    return Counter((str(b.name), _elements(b)) for b in made if b in taken)


def _elements(buffer: Any) -> int:
    size = 1
    for extent in buffer.shape:
        size *= int(extent) if isinstance(extent, tirx.IntImm) else 1
    return size


def _smaller(
    before: Counter[tuple[str, int]], after: Counter[tuple[str, int]]
) -> list[tuple[str, int, int]]:
    gone, come = before - after, after - before
    sizes = dict(come)
    found: list[tuple[str, int, int]] = []
    for name, size in gone:
        left = min((other for each, other in sizes if each == name), default=0)
        found.append((name, size, left))
    return found
