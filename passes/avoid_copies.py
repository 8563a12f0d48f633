"""Compute the inputs of concatenations in place, and read slices in place."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import tvm
from tvm import relax
from tvm.ir import TupleType
from tvm.ir.expr import Call

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import shape, updated
from hybridc.compiler.kernel_record import KernelRecord
from hybridc.compiler.kernels.indexing.joins import joined_axis, taken_begin
from hybridc.passes import _boxes, _buffers
from hybridc.passes._boxes import Box
from hybridc.passes._buffers import Buffers

Var = Any  # tvm.relax.Var


@dataclass(frozen=True)
class AvoidCopies(Pass):
    """Compute the inputs of concatenations in place, and read slices in place.

    A kernel is then passed the larger tensor, and works on a box of it.  An input that has a place
    already, such as an input of the model or of two concatenations, is copied by a kernel of its
    own, which is yet to be scheduled.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Plan where tensors lie, then rewrite the kernels that work on them."""
        buffers = _buffers.buffers_of(module["main"], module)
        plan = _Plan(buffers)
        for index in reversed(buffers.calls):
            plan.join(index, module)
        for index in buffers.calls:
            plan.take(index, module)
        if not plan.places:
            return module
        rewriter = _Rewriter(module, plan)
        rewritten = rewriter.module()
        context.kernels[:] = _renamed(context.kernels, rewriter.variants, rewritten)
        return rewritten


@dataclass
class _Plan:
    """Which tensors lie within others (and where they begin), and what becomes of the kernels.

    `gone` are bindings without which the function does; `copies` are the inputs that take the
    place of a concatenation, each with where it begins in the result.
    """

    buffers: Buffers
    places: dict[Var, tuple[Any, tuple[int, ...]]] = field(default_factory=dict[Var, Any])
    gone: set[int] = field(default_factory=set[int])
    copies: dict[int, list[tuple[Any, tuple[int, ...]]]] = field(default_factory=dict[int, Any])

    def join(self, index: int, module: IRModule) -> None:
        """Place inputs of a concatenation, later ones first: one may be part of the next."""
        call = self.buffers.calls[index]
        axis = joined_axis(module[call.op])
        if axis is None:
            return
        *inputs, result = map(self.buffers.tensor, call.args)
        begin, copies = 0, list[tuple[Any, tuple[int, ...]]]()
        for tensor, operand in zip(inputs, call.args, strict=False):
            start = tuple(begin if i == axis else 0 for i in range(len(shape(operand))))
            if inputs.count(tensor) == 1 and self._free(tensor, module):
                self.places[tensor] = result, start
            else:
                copies.append((operand, start))
            begin += shape(operand)[axis]
        if len(copies) < len(inputs):
            self.gone.add(index)
            self.copies[index] = copies

    def take(self, index: int, module: IRModule) -> None:
        """Let those who read a slice read what it is a slice of."""
        call = self.buffers.calls[index]
        begin = taken_begin(module[call.op])
        if begin is None:
            return
        source, result = map(self.buffers.tensor, call.args)
        if isinstance(source, relax.Var) and self._free(result, module):
            self.places[result] = source, begin
            self.gone.add(index)

    def _free(self, tensor: Any, module: IRModule) -> bool:
        """Whether a tensor can lie anywhere: only kernels use it, and they can be moved."""
        return (
            tensor in self.buffers.allocations
            and tensor not in self.places
            and not self.buffers.others[tensor]
            and all(
                _boxes.movable(module[call.op], position)
                for call, position in self.buffers.users[tensor]
            )
        )

    def place(self, expr: Any) -> tuple[Any, Box | None]:
        """The tensor that holds an argument, and its box there if it is not the whole."""
        tensor = self.buffers.tensor(expr)
        if tensor not in self.places:
            return expr, None
        begin = (0,) * len(shape(expr))
        while tensor in self.places:
            tensor, start = self.places[tensor]
            begin = tuple(a + b for a, b in zip(begin, start, strict=True))
        return tensor, Box(shape(tensor), begin)


class _Rewriter:
    """Writes the function again, with variants of the kernels whose arguments were moved."""

    def __init__(self, module: IRModule, plan: _Plan) -> None:
        self._module, self._plan = module, plan
        self._allocated: set[Any] = set()
        calls = plan.buffers.calls.items()
        kept = {call.op for i, call in calls if i not in plan.gone and not self._boxes(call.args)}
        dropped = {call.op for _, call in calls} - kept
        functions = {var: f for var, f in module.functions_items() if var not in dropped}
        self._builder = relax.BlockBuilder(tvm.IRModule(functions, attrs=module.attrs))
        self.variants: dict[str, str] = {}

    def module(self) -> IRModule:
        """The module with the function and the kernels that it calls."""
        main = self._module["main"]
        bindings = [new for i in range(len(self._plan.buffers.bindings)) for new in self._new(i)]
        body = relax.SeqExpr([relax.BindingBlock(bindings)], main.body.body)
        written = relax.Function(main.params, body, main.ret_ty, main.is_pure, main.attrs)
        built = self._builder.get()
        return relax.transform.Normalize()(updated(built, {built.get_global_var("main"): written}))

    def _new(self, index: int) -> Iterator[Any]:
        """What takes the place of a binding."""
        buffers, places = self._plan.buffers, self._plan.places
        binding = buffers.bindings[index]
        if binding.var in buffers.allocations:
            yield from self._allocation(binding.var)
        elif index in self._plan.copies:
            call = buffers.calls[index]
            for operand, begin in self._plan.copies[index]:
                yield self._copy(operand, call.args[-1], begin)
        elif index in self._plan.gone or buffers.tensor(binding.value) in places:
            return
        elif index in buffers.calls:
            yield self._moved(binding)
        else:
            yield binding

    def _allocation(self, tensor: Any) -> Iterator[Any]:
        """Allocate the tensor that holds a tensor, ahead of the first that is written into it."""
        buffers = self._plan.buffers
        holder, _ = self._plan.place(tensor)
        if holder in buffers.allocations and holder not in self._allocated:
            self._allocated.add(holder)
            yield buffers.bindings[buffers.allocations[holder]]

    def _moved(self, binding: Any) -> Any:
        call = binding.value
        boxes = self._boxes(call.args)
        if not boxes:
            return binding
        func = _boxes.moved(self._module[call.op], boxes)
        kernel = self._builder.add_func(func.without_attr("global_symbol"), call.op.name_hint)
        self.variants[kernel.name_hint] = call.op.name_hint
        return relax.VarBinding(binding.var, self._call(kernel, call.args))

    def _copy(self, operand: Any, result: Any, begin: tuple[int, ...]) -> Any:
        """Copy a tensor to where it begins in the result of a concatenation."""
        holder, box = self._plan.place(result)
        start = tuple(a + b for a, b in zip(box.begin, begin, strict=True)) if box else begin
        boxes = {**self._boxes([operand]), 1: Box(shape(holder), start)}
        func = _boxes.moved(_boxes.copy(shape(operand), str(operand.ty.dtype)), boxes)
        kernel = self._builder.add_func(func, "copy")
        return relax.VarBinding(
            relax.Var("_", TupleType([])), self._call(kernel, [operand, holder])
        )

    def _boxes(self, arguments: Sequence[Any]) -> dict[int, Box]:
        """The boxes of arguments that lie within other tensors."""
        placed = ((i, self._plan.place(argument)[1]) for i, argument in enumerate(arguments))
        return {i: box for i, box in placed if box is not None}

    def _call(self, kernel: Any, arguments: Sequence[Any]) -> Any:
        holders = [self._plan.place(argument)[0] for argument in arguments]
        return Call(kernel, holders)


def _renamed(
    records: Sequence[KernelRecord], variants: Mapping[str, str], module: IRModule
) -> list[KernelRecord]:
    """The records of the kernels that are in the module, under the names that they have there."""
    known = {record.kernel: record for record in records}
    names = [var.name_hint for var in module.get_global_vars()]
    originals = ((name, variants.get(name, name)) for name in names)
    return [replace(known[old], kernel=name) for name, old in originals if old in known]
