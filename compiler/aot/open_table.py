"""A model of open sizes as a function of a table of addresses and numbers.

The table is that of `addresses`, and behind it numbers of 64 bits: the open sizes of inputs, one by
one in their order, and what `SIZES` makes of them: the open sizes of results, where each storage
begins in the memory, and last the bytes of this.  `SIZES` is asked once for sizes that are new.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import tvm
from tvm import tirx

from hybridc.compiler.aot import addresses, worth
from hybridc.compiler.aot.course import BOUNDARY, Course
from hybridc.compiler.aot.numbers_of_table import Numbers
from hybridc.compiler.aot.parts import sequence, sizes_of, substituted
from hybridc.compiler.aot.region import Call, Failures, Kernel, in_order, regions
from hybridc.compiler.interfaces import IRModule, PrimFunc
from hybridc.compiler.target import Target

# The symbol of the function that makes the other numbers of the open sizes of inputs.
SIZES = "numbers_of_sizes"
# The symbol of one that tells how many these are; the last of them is the bytes of memory.
COUNT = "count_of_numbers"
Expr = Any  # tvm.ir.Expr of int64
Var = Any  # tvm.relax.Var


def functions(
    module: IRModule, course: Course, kernels: Mapping[str, Kernel], target: Target
) -> dict[str, PrimFunc]:
    """The function by its symbol, and what it needs; nothing where the table cannot tell all."""
    main = module["main"]
    if not all(map(_has_shape, course.places)):
        return {}
    course = _with_loose(main, course)
    places = addresses.of(main, course)
    known = {size for size in open_sizes(main.params[:-1]) if isinstance(size, tirx.Var)}
    if places is None or not set(_used(main, course)) <= known:
        return {}
    return _Open(module, course, kernels, places, target).functions()


def open_sizes(tensors: Sequence[Any]) -> list[Expr]:
    """The sizes of some tensors that are not known, one by one."""
    return [extent for tensor in tensors for extent in _open(tensor)]


def _open(tensor: Any) -> list[Expr]:
    return [extent for extent in tensor.ty.shape.values if not isinstance(extent, tirx.IntImm)]


def _has_shape(var: Var) -> bool:
    """Whether all sizes of what a variable holds are known, or are expressions."""
    is_storage = isinstance(var.ty, tvm.relax.AnyType)
    return is_storage or getattr(getattr(var.ty, "shape", None), "values", None) is not None


def _with_loose(main: Any, course: Course) -> Course:
    """The course, in which tensors that are neither planned nor returned have storages too."""
    lasting = {addresses.holder(result, course) for result in addresses.results_of(main, course)}
    made = [b for b in course.kept if b.var not in course.weights and b.var not in lasting]
    storages = {**course.storages, **{binding.var: _bytes(binding.var.ty) for binding in made}}
    return Course(
        course.places,
        course.calls,
        course.tuples,
        course.kept,
        course.renames,
        course.weights,
        storages,
        course.size,
    )


def _used(main: Any, course: Course) -> Iterator[Any]:
    """The open sizes that anything is computed of."""
    extents = [*course.storages.values(), *open_sizes(addresses.results_of(main, course))]
    for _, arguments in course.calls:
        for argument in arguments:
            extents += _open(argument) if argument in course.places else [argument]
    for extent in extents:
        yield from tirx.analysis.undefined_vars(extent)


class _Open:
    """Makes the functions of one model."""

    def __init__(
        self,
        module: IRModule,
        course: Course,
        kernels: Mapping[str, Kernel],
        places: list[list[Var]],
        target: Target,
    ) -> None:
        self._module, self._course, self._kernels = module, course, kernels
        self._main, self._target = module["main"], target
        self._given = open_sizes(self._main.params[:-1])
        self._results = addresses.results_of(self._main, course)
        self._numbers = Numbers()
        for size in open_sizes(addresses.results_of(self._main, course)):
            self._numbers.add(size)
        end: Expr = tirx.const(_rounded(course.size), "int64")
        self._storages: dict[Var, Any] = {}
        for var, size in course.storages.items():
            self._storages[var] = self._numbers.add(end)
            end = _after(self._storages[var], size)
        end = self._numbers.add(end)
        self._shared = [self._held(name, arguments, end) for name, arguments in course.calls]
        self._when = [list(self._wanted(*call)) for call in course.calls]
        self._several, self._total = self._worth(), end
        for _, last in self._shared:
            if not last.same_as(end):
                self._total = self._numbers.add(tirx.max(self._total, last))
        self._numbers.add(self._total)
        count = len(self._given) + len(self._numbers.values)
        self._table = addresses.Table(places, None, count)

    def functions(self) -> dict[str, PrimFunc]:
        """By their symbols."""
        symbol = addresses.ALONE if self._is_alone else addresses.RUN
        layout = addresses.told(addresses.layout_of(self._main, self._course))
        count = addresses.told(len(self._given) + len(self._numbers.values))
        made = {symbol: self._run(), SIZES: self._sizes(), COUNT: count, addresses.LAYOUT: layout}
        return {name: addresses.named(func, name) for name, func in made.items()}

    @property
    def _is_alone(self) -> bool:
        names = {name for name, _ in self._course.calls}
        parts = [part for kernel in self._kernels.values() for part in kernel.parts.parts]
        return names == set(self._kernels) and all(part.tasks == 1 for part in parts)

    def _run(self) -> PrimFunc:
        """The function that calls all kernels, on threads or one where that is enough."""
        failures = Failures()
        steps = [
            step for number in range(len(self._shared)) for step in self._steps(number, failures)
        ]
        body = list(regions(steps))
        if not self._is_alone:
            alone = in_order([s.serial() if isinstance(s, Call) else s for s in steps])
            several = self._number(self._several) > tirx.const(0, "int64")
            body = [tirx.IfThenElse(several, sequence(body), alone)]
        return self._of_table(failures.around(body))

    def _sizes(self) -> PrimFunc:
        """The function that makes numbers."""
        steps: list[Any] = []
        for name, value in zip(self._numbers.names, self._numbers.values, strict=True):
            place = len(self._given) + self._numbers.place(name)
            steps += [self._table.stored(place, value), tirx.Bind(name, self._table.number(place))]
        return self._of_table(sequence(steps[:-1]))

    def _of_table(self, body: Any) -> PrimFunc:
        """A function of the table, which knows the open sizes."""
        binds: dict[Any, Any] = {}
        for place, size in enumerate(self._given):
            if isinstance(size, tirx.Var) and size not in binds:
                binds[size] = tirx.Bind(size, self._table.number(place))
        whole = self._table.around(sequence([*binds.values(), body]))
        return tirx.PrimFunc([self._table.param], whole)

    def _number(self, name: Any) -> Expr:
        return self._table.number(len(self._given) + self._numbers.place(name))

    def _steps(self, number: int, failures: Failures) -> list[Any]:
        """What one call of a kernel does."""
        (name, arguments), (shared, _) = self._course.calls[number], self._shared[number]
        if name not in self._kernels:
            values = [self._array(a) if a in self._course.places else a for a in arguments]
            return [tirx.Evaluate(tirx.call_cpacked(name, *values))]
        kernel = self._kernels[name]
        data: dict[Any, Any] = {}
        for param, argument in zip(kernel.parts.params, arguments, strict=True):
            if argument in self._course.places:
                data[param] = self._start(argument)
        data |= {buffer: self._table.within(self._number(n)) for buffer, n in shared.items()}
        data |= self._known(name, arguments)
        wanted = self._when[number]
        when: list[Any] = [n if n is None else ([], self._number(n) > 0) for n in wanted]
        found: list[Call] = kernel.calls(data, failures, when=when)
        return found

    def _wanted(self, name: str, arguments: Sequence[Any]) -> Iterator[Any]:
        """The numbers that tell whether the parts of a kernel have anything to do, or None."""
        split = self._kernels[name].parts.parts if name in self._kernels else ()
        known = self._known(name, arguments) if split else {}
        for part in split:
            if part.condition is None:
                yield None
                continue
            found = dict(known)
            for bind in part.condition.binds:
                found[bind.var] = self._numbers.once(substituted(bind.value, found))
            value = substituted(part.condition.value, found)
            yield self._numbers.once(tirx.Cast("int64", value))

    def _known(self, name: str, arguments: Sequence[Any]) -> dict[Any, Expr]:
        """The open sizes of a kernel in a call."""
        func = self._module[name]
        known: dict[Any, Expr] = {}
        for param, argument in zip(func.params, arguments, strict=True):
            if argument not in self._course.places:
                known[param] = _as(argument, param)
                continue
            for own, extent in zip(param.shape, argument.ty.shape.values, strict=True):
                if isinstance(own, tirx.Var):
                    known.setdefault(own, _as(extent, own))
        assert set(sizes_of(func)) <= set(known), f"{name} has a size that no argument tells"
        return known

    def _held(
        self, name: str, arguments: Sequence[Any], start: Expr
    ) -> tuple[dict[Any, Any], Expr]:
        """The numbers that tell where parts of a kernel hold what they share, and its end."""
        places: dict[Any, Any] = {}
        shared = self._kernels[name].parts.shared if name in self._kernels else ()
        known = self._known(name, arguments) if shared else {}
        for buffer in shared:
            places[buffer] = self._numbers.add(start)
            extents = [substituted(extent, known) for extent in buffer.shape]
            size = _product(extents) * _element(str(buffer.dtype))
            start = self._numbers.add(_after(places[buffer], size))
        return places, start

    def _start(self, var: Var) -> Any:
        place = self._course.places[var]
        if place.holder is None:
            return self._table.within(tirx.const(place.offset, "int64"))
        if place.holder in self._storages:
            begin = self._number(self._storages[place.holder])
            return self._table.within(begin + tirx.const(place.offset, "int64"))
        return self._table.start(place.holder)

    def _array(self, var: Var) -> Any:
        return addresses.array(self._start(var), var)

    def _worth(self) -> Any:
        """The number of cycles that all threads save, by its variable."""
        calls: dict[str, tuple[int, Any]] = {}
        for name, arguments in self._course.calls:
            tensors = [each for each in arguments if each in self._course.places]
            key = f"{name} {[each.ty for each in tensors]}"
            count, call = calls.get(key, (0, (self._module[name], tensors)))
            calls[key] = count + 1, call
        gains = worth.gains([c for _, c in calls.values()], self._course.is_weight, self._target)
        total: Expr = tirx.const(-round(self._target.machine.parallel_cycles), "int64")
        for (count, _), gain in zip(calls.values(), gains, strict=True):
            total = self._numbers.add(total + gain * count)
        return total


def _after(start: Expr, size: Expr) -> Expr:
    """The boundary behind a storage."""
    return start + tirx.floordiv(size + (BOUNDARY - 1), BOUNDARY) * BOUNDARY


def _rounded(size: int) -> int:
    return -(-size // BOUNDARY) * BOUNDARY


def _product(extents: Sequence[Expr]) -> Expr:
    return prod(extents, start=tirx.const(1, "int64"))


def _bytes(kind: Any) -> Expr:
    return _product(list(kind.shape.values)) * _element(str(kind.dtype))


def _element(dtype: str) -> int:
    element = tvm.DataType(dtype)
    return (int(element.bits) * int(element.lanes) + 7) // 8


def _as(value: Expr, like: Any) -> Expr:
    dtype = str(like.ty.dtype)
    return value if str(value.ty.dtype) == dtype else tirx.Cast(dtype, value)
