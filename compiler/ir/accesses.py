"""Which buffers statements of loop nests store to and load from."""

from typing import Any

from tvm import tirx
from tvm.ir.expr import Call, TensorLoad
from tvm.target.codegen import llvm_lookup_intrinsic_id
from tvm_ffi import structural_map, structural_walk

Buffer = Any  # a variable of tvm.tirx.buffer.BufferType


def stored_and_loaded(body: Any) -> tuple[set[Buffer], set[Buffer]]:
    """The buffers stored to, and those loaded from.

    To prefetch the line that a result will be written to is not to read it.
    """
    stored, loaded = set[Buffer](), set[Buffer]()
    plain = structural_map(body, (tirx.Evaluate, _without_prefetch))
    structural_walk(plain, (tirx.BufferStore, lambda store: stored.add(store.buffer)))
    structural_walk(plain, (TensorLoad, lambda load: loaded.add(load.source)))
    return stored, loaded


def _without_prefetch(statement: Any) -> Any:
    value: Any = statement.value
    named = isinstance(value, Call) and str(value.op.name) == "tirx.call_llvm_intrin"
    called: Any = value.args[0] if named else -1
    prefetches = int(called) == llvm_lookup_intrinsic_id("llvm.prefetch")
    return tirx.Evaluate(0) if prefetches else statement
