"""Give a model a `main` that asks one function for all its kernels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import prod
from typing import Any

import tvm
from tvm import relax, tirx

from hybridc.compiler.aot import addresses, open_table, overwriting, parts, worth
from hybridc.compiler.aot import course as courses
from hybridc.compiler.aot.checks import trusting
from hybridc.compiler.aot.course import BOUNDARY, Course
from hybridc.compiler.aot.parts import Part, Parts
from hybridc.compiler.aot.region import Call, Failures, Kernel, regions
from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.target import Target

# The function that makes each call through the virtual machine, for those who watch each kernel.
BY_KERNEL = "kernel_by_kernel"
_ALL = "all_kernels"
_DATA = 1  # the field of a DLTensor, in TVM's numbering


def join(module: IRModule, target: Target) -> IRModule:
    """The module with such a `main`, and `BY_KERNEL` as `main` was.

    `main` has its storages planned, and takes weights as its last parameter.  Where several threads
    do not pay, one does everything.  Where sizes are open, `main` stays as it is, beside the
    function of a table; returns the module given where more is to be done than to call kernels.
    """
    main = module["main"]
    course = courses.read(main)
    if course is None or not course.calls:
        return module
    builder = relax.BlockBuilder(module)
    kernels = _kernels(builder, _split(module, course, target))
    whole = [arg for name, args in course.calls if name not in kernels for arg in args]
    if any(_is_narrow(arg) for arg in whole if arg in course.places):
        return module
    if course.is_fixed:
        function = _Function(main, course, kernels)
        name = builder.add_func(function.make(), _ALL)
        joined, symbols = builder.get(), function.by_address(module)
        joined[BY_KERNEL] = main.with_attr("global_symbol", BY_KERNEL)
        joined["main"] = _main(main, course, relax.Call(name, function.arguments), function.memory)
    else:
        joined, symbols = builder.get(), open_table.functions(module, course, kernels, target)
    for symbol, func in symbols.items():
        joined[symbol] = func
    for kernel in dict.fromkeys(name for name, _ in course.calls):
        split = kernels.get(kernel)
        joined[kernel] = trusting(split.alone(module[kernel]) if split else module[kernel])
    return joined


def _split(module: IRModule, course: Course, target: Target) -> dict[str, Parts]:
    """The kernels that can be split, by name; for one thread where that is enough for all."""
    names = list(dict.fromkeys(name for name, _ in course.calls))
    found = {name: parts.split(module[name], target.threads) for name in names}
    split = {name: each for name, each in found.items() if each is not None}
    if len(split) < len(names) or target.threads == 1 or not course.is_fixed:
        return split
    passed = [(name, [a for a in args if not course.is_weight(a)]) for name, args in course.calls]
    if worth.pays(module, passed, split, target):
        return split
    alone = {name: parts.split(module[name], 1) for name in names}
    return {name: each for name, each in alone.items() if each is not None}


def _kernels(builder: Any, split: Mapping[str, Parts]) -> dict[str, Kernel]:
    """Kernels in parts, which are added to the module."""
    return {
        name: Kernel(each, [builder.add_func(p.func, f"{name}_part") for p in each.parts])
        for name, each in split.items()
    }


def _is_narrow(var: Any) -> bool:
    """Whether a tensor is of a type that TVM computes in another, and makes no arrays of."""
    return any(name in str(var.ty.dtype) for name in ("bfloat", "float8", "float4"))


class _Function:
    """The function that calls all kernels, and the `arguments` that `main` gives it.

    Those are the tensors that kernels read or write, and last a `memory` of bytes that holds all
    storages, and behind these what parts of one kernel share.  Kernels that could not be split are
    called whole, between two starts of the threads.
    """

    def __init__(self, main: Any, course: Course, kernels: Mapping[str, Kernel]) -> None:
        self._course, self._kernels, self._failures = course, kernels, Failures()
        used = {course.places[argument].holder for _, args in course.calls for argument in args}
        every = [*main.params, *(binding.var for binding in course.kept)]
        holders = [var for var in every if var in used]
        shared = [_offsets(kernel.parts.shared, course.size) for kernel in kernels.values()]
        size = max([course.size, *(end for _, end in shared)])
        self._shared = dict(zip(kernels, (places for places, _ in shared), strict=True))
        handles = {var: tirx.Var(var.name, "handle") for var in holders}
        # Taken as they are: checks of hundreds of weights would be most of the code.
        self._starts = {
            var: tirx.tvm_struct_get(handle, 0, _DATA, "handle") for var, handle in handles.items()
        }
        self._handles = list(handles.values())
        self._apart: Callable[[Any, Any], Any] = lambda *_: None
        self._bytes = tirx.decl_buffer((max(1, size),), "uint8", "memory")
        self.memory = relax.Var("memory", relax.TensorType([size], "uint8")) if size else None
        self.arguments = [*holders, *([self.memory] if size else [])]

    def make(self) -> PrimFunc:
        """The function itself."""
        params = [*self._handles, *([self._bytes] if self.memory is not None else [])]
        return addresses.named(tirx.PrimFunc(params, self._body()), _ALL)

    def by_address(self, module: IRModule) -> dict[str, PrimFunc]:
        """The same of one argument, and what it needs; nothing where `addresses` cannot tell."""
        main = module["main"]
        places = addresses.of(main, self._course)
        if places is None:
            return {}
        table = addresses.Table(places, self._bytes)
        self._starts = {var: table.start(var) for var in self._starts}
        self._apart = table.apart
        self._failures = Failures()
        made = tirx.PrimFunc([table.param], table.around(self._body()))
        symbol = addresses.ALONE if self._is_alone else addresses.RUN
        facts = {
            addresses.BYTES: int(self._bytes.shape[0]),
            addresses.LAYOUT: addresses.layout_of(main, self._course),
            **{addresses.overwriting(*p): 1 for p in overwriting.pairs(module, self._course)},
        }
        told = {name: addresses.named(addresses.told(fact), name) for name, fact in facts.items()}
        return {symbol: addresses.named(made, symbol), **told}

    @property
    def _is_alone(self) -> bool:
        """Whether no kernel starts threads."""
        names = {name for name, _ in self._course.calls}
        parts = [part for kernel in self._kernels.values() for part in kernel.parts.parts]
        return names == set(self._kernels) and all(part.tasks == 1 for part in parts)

    def _body(self) -> Any:
        """The calls of all kernels."""
        steps = [step for name, args in self._course.calls for step in self._steps(name, args)]
        return self._failures.around(list(regions(steps)))

    def _steps(self, name: str, args: Sequence[Any]) -> list[Any]:
        if name not in self._kernels:
            arrays = [addresses.array(self._data(argument), argument) for argument in args]
            return [tirx.Evaluate(tirx.call_cpacked(name, *arrays))]
        kernel = self._kernels[name]
        data = dict(zip(kernel.parts.params, map(self._data, args), strict=True))
        data |= {buffer: self._at(place) for buffer, place in self._shared[name].items()}
        holders = dict(zip(kernel.parts.params, map(self._holder, args), strict=True))

        def condition(part: Part) -> Any:
            pair = overwriting.copied(part.func, part.buffers)
            return pair and self._apart(*(holders.get(buffer) for buffer in pair))

        found: list[Call] = kernel.calls(data, self._failures, condition)
        return found

    def _holder(self, var: Any) -> Any:
        place = self._course.places[var]
        return None if place.offset else place.holder

    def _at(self, offset: int) -> Any:
        return tirx.address_of(self._bytes[offset])

    def _data(self, var: Any) -> Any:
        place = self._course.places[var]
        if place.holder is None:
            return self._at(place.offset)
        return self._starts[place.holder]


def _offsets(buffers: Sequence[Any], start: int) -> tuple[dict[Any, int], int]:
    """A place for each buffer from `start` on, and where the last of them ends."""
    places: dict[Any, int] = {}
    for buffer in buffers:
        places[buffer] = start
        element = tvm.DataType(str(buffer.dtype))
        size = prod(map(int, buffer.shape)) * ((element.bits * element.lanes + 7) // 8)
        start += -(-size // BOUNDARY) * BOUNDARY
    return places, start


def _main(main: Any, course: Course, call: Any, memory: Any | None) -> Any:
    """The function with one call for all, between what it takes and what it returns."""
    bindings = list(course.kept)
    if memory is not None:
        shape = memory.ty.shape
        storage = relax.Var("storage", relax.AnyType())
        allocated = relax.op.memory.alloc_storage(shape, 0, "global", "uint8")
        tensor = relax.op.memory.alloc_tensor(storage, 0, shape, "uint8")
        bindings += [relax.VarBinding(storage, allocated), relax.VarBinding(memory, tensor)]
    nothing = relax.Var("_", relax.TupleType([]))
    bindings.append(relax.VarBinding(nothing, call))
    bindings += _needed(course.renames, main.body.body)
    body = relax.SeqExpr([relax.BindingBlock(bindings)], main.body.body)
    return relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)


def _needed(renames: Sequence[Any], result: Any) -> list[Any]:
    """Those that the result is read through."""
    # A function may return a tuple that no binding names.
    several = isinstance(result, tvm.ir.Tuple)
    wanted, found = set(result.fields) if several else {result}, list[Any]()
    for binding in reversed(renames):
        if binding.var in wanted:
            found.append(binding)
            wanted |= set(_read(binding.value))
    return found[::-1]


def _read(value: Any) -> Iterator[Any]:
    if isinstance(value, tvm.ir.Tuple):
        yield from value.fields
    else:
        yield value.args[0] if isinstance(value, tvm.ir.Call) else value
