"""Which results may be computed where an input lies, whose old content nobody asks for again.

A cache to which a few rows are written at each call is copied whole otherwise.  A result may take
an input's place if nothing of the input is read once a kernel has begun to write the result; but
for a kernel that copies each element of the one to the same place of the other, which changes
nothing, and is left out then.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tvm
from tvm import tirx
from tvm.ir import TensorLoad
from tvm.s_tir import SBlock
from tvm_ffi import structural_equal, structural_walk

from hybridc.compiler.aot import addresses
from hybridc.compiler.aot.course import Course
from hybridc.compiler.interfaces import IRModule, PrimFunc

# What lower-bfloat16 moves bits by, of which it makes as many as there were.
_BITS = "tirx.reinterpret"
Var = Any  # tvm.relax.Var of a tensor in `main`, tvm.ir.Var of a buffer in a kernel


def pairs(module: IRModule, course: Course) -> Iterator[tuple[int, int]]:
    """A result and an input, by their numbers, of one shape and type, for which this is so."""
    main = module["main"]
    *inputs, _ = main.params
    uses = [_uses(module[name], args, course) for name, args in course.calls]
    for number, result in enumerate(addresses.results_of(main, course)):
        made = addresses.holder(result, course)
        for place, given in enumerate(inputs):
            if _alike(result, given) and _dies(given, made, uses):
                yield number, place


def _alike(result: Var, given: Var) -> bool:
    kinds = [(list(map(int, x.ty.shape.values)), str(x.ty.dtype)) for x in (result, given)]
    return kinds[0] == kinds[1]


_Uses = tuple[PrimFunc, Mapping[Var, list[Var]]]  # a kernel, and its buffers by where they lie


def _uses(kernel: PrimFunc, args: list[Var], course: Course) -> _Uses:
    held: dict[Var, list[Var]] = {}
    for buffer, arg in zip(kernel.params, args, strict=False):
        held.setdefault(course.places[arg].holder, []).append(buffer)
    return kernel, held


def _dies(given: Var, result: Var, uses: list[_Uses]) -> bool:
    """Whether the input is dead before the result comes to life."""
    reading = [i for i, (_, held) in enumerate(uses) if given in held]
    living = [i for i, (_, held) in enumerate(uses) if result in held]
    if not living or not reading or reading[-1] < living[0]:
        return bool(living)
    kernel, held = uses[living[0]]
    if reading[-1] > living[0] or len(held[given]) + len(held[result]) > 2:
        return False
    return copies(kernel, held[given][0], held[result][0])


def copies(kernel: PrimFunc, source: Var, target: Var) -> bool:
    """Whether a kernel reads a buffer for nothing but to put it at the same places of another."""
    loads, blocks, calls = (_found(kernel, kind) for kind in (TensorLoad, SBlock, tvm.ir.Call))
    copied = sum(_copies(store, source, target) for store in _found(kernel, tirx.BufferStore))
    seen = any(block.match_buffers for block in blocks)
    seen = seen or any(source.same_as(arg) for call in calls for arg in call.args)
    return not seen and sum(load.source.same_as(source) for load in loads) == copied


def copied(part: PrimFunc, buffers: Sequence[Var]) -> tuple[Var, Var] | None:
    """The buffers of which a part copies the one to the same places of the other, and no more."""
    stores = _found(part, tirx.BufferStore)
    if len(buffers) != 2 or not stores:
        return None
    for source, target in (buffers, buffers[::-1]):
        if copies(part, source, target) and all(_copies(s, source, target) for s in stores):
            return source, target
    return None


def _found(func: PrimFunc, kind: Any) -> list[Any]:
    found: list[Any] = []
    structural_walk(func.body, (kind, found.append))
    return found


def _copies(store: Any, source: Var, target: Var) -> bool:
    value = store.value
    while getattr(getattr(value, "op", None), "name", "") == _BITS:
        (value,) = value.args
    if not (isinstance(value, TensorLoad) and value.source.same_as(source)):
        return False
    if not store.buffer.same_as(target) or len(source.shape) != len(target.shape):
        return False
    extents = zip(source.shape, target.shape, strict=True)
    places = zip(value.indices, store.indices, strict=True)
    return all(structural_equal(*pair) for pair in (*extents, *places))
