"""What an epilogue reads, asked for at the beginning: biases are in memory, not in caches."""

from typing import Any

from tvm import tirx
from tvm.ir.expr import Call, TensorLoad
from tvm_ffi import structural_walk

from hybridc.schedules.cuda import tir
from hybridc.schedules.loops import access

Expr = Any


def asked(store: Any, without: Expr | None = None) -> list[Any]:
    """Statements that ask for what a store reads of tensors, at places that do not vary `without`.

    None where some of it is read under a condition only, as its place may be none.
    """
    loads: list[Any] = []
    conditional: list[Any] = []
    structural_walk(
        store.value,
        [
            (TensorLoad, loads.append),
            (Call, lambda call: conditional.append(call) if access.conditional(call) else None),
        ],
    )
    if conditional:
        return []
    places = [load for load in loads if load.source.scope() == "global"]
    if without is not None:
        places = [load for load in places if not access.uses(load, without)]
    return [tir.call("prefetch", tirx.address_of(load)) for load in places]
