"""A model as a function of one argument, a table of addresses: for calls that take microseconds.

The virtual machine takes several to look up each weight, to make tensors for the results and for
what lies between kernels, and to hand all of them over.  Whoever keeps these in place, as a session
does, writes where inputs and results lie into the table and calls the function.

The table has 64-bit addresses: of each input, of each result, of a memory of `BYTES()` bytes for
what lies between kernels, and of each weight.  Nobody checks what lies there, so `LAYOUT()` tells
for which arrays the function was made.

A result may be asked for in the place of an input where there is the symbol `overwriting` of both.
"""

from collections.abc import Sequence
from math import prod
from typing import Any

import tvm
from blake3 import blake3
from tvm import tirx

from hybridc.compiler.aot.checks import trusting
from hybridc.compiler.aot.course import Course
from hybridc.compiler.aot.parts import on_host, sequence
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.ir.rewrite import bindings_of

# The symbols of the function, another where it starts no threads, of one that tells how many bytes
# of memory it needs, and of one that tells its `layout`.
RUN, ALONE = "run_by_address", "run_by_address_alone"
BYTES, LAYOUT = "memory_bytes", "table_layout"
_DATA = 1  # the field of a DLTensor, in TVM's numbering
Var = Any  # tvm.relax.Var
Kind = tuple[Sequence[int], str]  # a shape and a dtype


def of(main: Any, course: Course) -> list[list[Var]] | None:
    """The variables whose data begin at each entry of the table; those of the memory are none.

    None if a result is an input, a weight or another result: the caller wants arrays of its own.
    """
    *inputs, weights = main.params
    taken = {b.var: b.value.index for b in bindings_of(main) if _takes(b.value, weights)}
    results = [holder(result, course) for result in results_of(main, course)]
    own = {*inputs, *taken, None}
    if any(result in own for result in results) or len(set(results)) < len(results):
        return None
    if any(not isinstance(var, tvm.relax.Var) for var in results):
        return None
    kept: list[list[Var]] = [[] for _ in weights.ty.fields]
    for var, index in taken.items():
        kept[index].append(var)
    return [*([var] for var in (*inputs, *results)), [], *kept]


class Table:
    """The function's parameter, and where the data of each variable begin by it.

    Behind the addresses there may be `numbers`.
    """

    def __init__(self, places: Sequence[Sequence[Var]], memory: Any, numbers: int = 0) -> None:
        self.param = tirx.Var("addresses", "handle")
        self._numbers = {var: index for index, some in enumerate(places) for var in some}
        self._memory, self._first, self._behind = memory, places.index([]), len(places)
        self._entries = tirx.decl_buffer((len(places) + numbers,), "int64", "entries")

    def start(self, var: Var) -> Any:
        """Where the data of a variable begin."""
        return self._entry(self._numbers[var])

    def apart(self, one: Any, other: Any) -> Any:
        """Whether two variables lie elsewhere; None where they do at every call."""
        if one not in self._numbers or other not in self._numbers:
            return None
        entries = (tirx.BufferLoad(self._entries, [self._numbers[var]]) for var in (one, other))
        return tirx.NE(*entries)

    def within(self, offset: Any) -> Any:
        """Where the memory has so many bytes before it."""
        start = tirx.BufferLoad(self._entries, [self._first])
        return tirx.reinterpret("handle", start + offset)

    def number(self, place: int) -> Any:
        """One of the numbers."""
        return tirx.BufferLoad(self._entries, [self._behind + place])

    def stored(self, place: int, value: Any) -> Any:
        """What stores one of the numbers."""
        return tirx.BufferStore(self._entries, value, [self._behind + place])

    def around(self, body: Any) -> Any:
        """The body, in which the memory and all entries are known."""
        data = tirx.tvm_struct_get(self.param, 0, _DATA, "handle")
        known = [tirx.DeclBuffer(self._entries, data=data)]
        if self._memory is not None:
            known.append(tirx.DeclBuffer(self._memory, data=self._entry(self._first)))
        return on_host(sequence([*known, body]))

    def _entry(self, index: int) -> Any:
        return tirx.reinterpret("handle", tirx.BufferLoad(self._entries, [index]))


def overwriting(result: int, given: int) -> str:
    """The symbol which says that a result may be computed where an input lies."""
    return f"result_{result}_may_overwrite_input_{given}"


def layout(inputs: Sequence[Kind], results: Sequence[Kind], weights: Sequence[int]) -> int:
    """A number that stands for the kinds of inputs and results, and for the bytes of weights.

    Open sizes are -1.
    """
    kinds = [
        [(tuple(map(int, shape)), dtype) for shape, dtype in side] for side in (inputs, results)
    ]
    digest = blake3(repr((*kinds, list(weights))).encode()).digest(8)
    return int.from_bytes(digest, "little") >> 1  # a positive number of 64 bits


def layout_of(main: Any, course: Course) -> int:
    """The layout of the table for a `main` that `of` takes."""
    *inputs, weights = main.params
    sizes = [prod(_kind(kind)[0]) * _bytes(kind.dtype) for kind in weights.ty.fields]
    results = [_kind(result.ty) for result in results_of(main, course)]
    return layout([_kind(var.ty) for var in inputs], results, sizes)


def _kind(kind: Any) -> Kind:
    sizes = (size if isinstance(size, tirx.IntImm) else -1 for size in kind.shape.values)
    return tuple(map(int, sizes)), str(kind.dtype)


def _bytes(dtype: Any) -> int:
    """Of an element, as numpy holds it."""
    element = tvm.DataType(str(dtype))
    return (int(element.bits) * int(element.lanes) + 7) // 8


def told(number: int) -> PrimFunc:
    """A function that returns a number."""
    value = tirx.const(number, "int64")
    return tirx.PrimFunc([], tirx.Return(value), tvm.ir.PrimType("int64"))


def named(func: PrimFunc, symbol: str) -> PrimFunc:
    """The function as a symbol of the library."""
    return trusting(func.with_attr({"global_symbol": symbol, "s_tir": True}))


def array(data: Any, var: Var) -> Any:
    """A DLTensor of a variable's shape, on the stack, where its data lie."""
    shape = list(var.ty.shape.values)
    sizes = tirx.call_intrin("handle", "tirx.tvm_stack_make_shape", *shape)
    dtype = tirx.const(0, str(var.ty.dtype))
    return tirx.tvm_stack_make_array(data, sizes, 0, len(shape), dtype, 0)


def _takes(value: Any, weights: Var) -> bool:
    return isinstance(value, tvm.ir.TupleGetItem) and value.tuple_value.same_as(weights)


def results_of(main: Any, course: Course) -> Sequence[Any]:
    """What the function returns, one by one."""
    result = main.body.body
    if isinstance(result, tvm.ir.Tuple):
        return list(result.fields)
    return course.tuples.get(result) or [result]


def holder(result: Any, course: Course) -> Any:
    """The variable in which a result lies from its start on; None if there is none."""
    place = course.places.get(result)
    return place.holder if place is not None and not place.offset else None
