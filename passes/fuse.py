"""Fuse each kernel with the elementwise operators around it."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import relax, tirx
from tvm.error import InternalError
from tvm.ir import TupleType
from tvm.ir.expr import TensorLoad
from tvm.ir.transform import PassContext, Sequential, module_pass
from tvm_ffi import structural_map, structural_walk

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    bindings_of,
    graph_of,
    operator,
    relax_functions,
    unless_same,
    updated,
)
from hybridc.compiler.kernels.indexing.joins import joined_axis
from hybridc.passes import _last_views, _long_expressions, _recomputed
from hybridc.passes._views import reshapes, view_reshapes

_NARROW = {"int8", "uint8"}
# TVM's kinds of operators: each element of the result reads the one in its place up to here, …
_BROADCAST = 1
# … one element up to here …
_INJECTIVE = 2
# … and what joins no group.
_OPAQUE = 8
# Operators of a group, at most.  What a store and a load cost is made up for long before, and the
# time in which a group is scheduled grows with the square of its size.
_MOST = 48


@dataclass(frozen=True)
class Fuse(Pass):
    """Fuse each kernel with the elementwise operators around it.

    Bias, activation and residual become the epilogue of the convolution or product before them,
    and a chain of elementwise operators becomes one loop nest: each kernel less saves a write and a
    read of a whole tensor.  A cast to 8 bits ends a kernel, since a quantised tensor is stored; so
    does an expensive function of few elements that is broadcast to many, such as gates of channels.
    A concatenation that no chain continues stays alone on a CPU, so that its inputs can be computed
    in place; on a GPU casts and slices of its inputs are fused, but not transposes.  Reshapes that
    are fused with no kernel become views.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Group by TVM's operator patterns, then merge each group's loop nests."""
        patterns = relax.transform.AnnotateTIROpPattern()(module)
        functions = {var: _stored(patterns, func) for var, func in relax_functions(patterns)}
        stored = updated(patterns, functions)
        grouped = _turned_alone(stored) if context.target.gpu else _joins_alone(stored)
        try:
            fused = _merged(grouped)
        except InternalError:
            # TVM cannot tell that what one kernel calls `n` another one calls `past + 1`.
            sums = {k: grouped[k].with_attr("op_pattern", _OPAQUE) for k in _of_sums(grouped)}
            if not sums:
                raise
            fused = _merged(updated(grouped, sums))
        return unless_same(module, fused if context.target.gpu else _last_views.viewed(fused))


def _merged(module: IRModule) -> IRModule:
    return Sequential(
        [
            _fuse_operators,
            relax.transform.FuseTIR(),
            # Now, while a reshape's loop nest can still be told from any other copy.
            view_reshapes,
            relax.transform.DeadCodeElimination(),
        ]
    )(module)


def _of_sums(module: IRModule) -> set[Any]:
    """The kernels some of whose operands or results have a size computed of open ones.

    Those that are given a size as a number too: it might be the size of another's operand.
    """
    found: set[Any] = set()
    for _, function in relax_functions(module):
        for binding in bindings_of(function):
            kernel = _kernel(binding.value)
            if kernel is None:
                continue
            types = [arg.ty for arg in binding.value.args[1].fields] + [binding.var.ty]
            shapes = [getattr(kind, "shape", None) for kind in types]
            extents = [e for shape in shapes for e in getattr(shape, "values", ())]
            computed = any(not isinstance(e, tirx.IntImm | tirx.Var) for e in extents)
            if computed or None in shapes or len(binding.value.args) > 2:
                found.add(kernel)
    return found


@module_pass(opt_level=0, name="fuse_operators")
def _fuse_operators(module: Any, context: Any) -> Any:
    """TVM's grouping, into groups that are not too large."""
    del context
    with PassContext(config={"relax.FuseOps.max_depth": _MOST}):
        return relax.transform.FuseOps()(module)


def _joins_alone(module: Any) -> Any:
    """Keep concatenations out of groups, but for those that elementwise operators go on from.

    Joined with what computes its inputs, one would choose among them for each element.
    """
    joins: dict[Any, list[_Join]] = defaultdict(list)
    for _, function in relax_functions(module):
        readers, values = _readers(function), graph_of(function).values
        for binding in bindings_of(function):
            kernel = _kernel(binding.value)
            if kernel is not None and joined_axis(module[kernel]) is not None:
                inputs = [_kernel(values.get(field)) for field in binding.value.args[1].fields]
                found = _through_reshapes(binding.var, readers, module)
                joins[kernel].append(_Join(inputs, found))
    chained: set[Any] = set()
    # A concatenation that stays alone ends the chain of those that it joins.
    while more := {k for k in joins.keys() - chained if _goes_on(k, joins, chained, module)}:
        chained |= more
    alone = joins.keys() - chained
    return updated(module, {k: module[k].with_attr("op_pattern", _OPAQUE) for k in alone})


def _turned_alone(module: Any) -> Any:
    """Keep concatenations out of groups that read one of their inputs, or them, across memory.

    A kernel that transposes does so by tiles, if no condition chooses what it reads.
    """
    alone: set[Any] = set()
    for _, function in relax_functions(module):
        readers, values = _readers(function), graph_of(function).values
        for binding in bindings_of(function):
            kernel = _kernel(binding.value)
            if kernel is None or joined_axis(module[kernel]) is None:
                continue
            inputs = [values.get(field) for field in binding.value.args[1].fields]
            around = [*inputs, *_through_reshapes(binding.var, readers, module)]
            if any(_turns(module, value) for value in around):
                alone.add(kernel)
    return updated(module, {k: module[k].with_attr("op_pattern", _OPAQUE) for k in alone})


def _turns(module: IRModule, value: Any) -> bool:
    """Whether an operator reads neighbours of its result from places that are far apart."""
    kernel = _kernel(value)
    if kernel is None or _pattern(module, value) != _INJECTIVE:
        return False
    func = module[kernel]
    if reshapes(func):
        return False
    found: list[Any] = []

    def store(node: Any) -> None:
        loads: list[Any] = []
        structural_walk(node.value, (TensorLoad, loads.append))
        inner = _variables(node.indices[-1]) if node.indices else []
        found.extend(
            load
            for load in loads
            for index in load.indices[:-1]
            if any(var.same_as(each) for each in inner for var in _variables(index))
        )

    structural_walk(func.body, (tirx.BufferStore, store))
    return bool(found)


@dataclass(frozen=True)
class _Join:
    """The kernels that make the inputs of a concatenation, and the values that read it."""

    inputs: Sequence[Any]
    readers: Sequence[Any]


def _goes_on(
    kernel: Any, joins: Mapping[Any, Sequence[_Join]], chained: set[Any], module: IRModule
) -> bool:
    """Whether somewhere only elementwise operators, and chains of them, read a concatenation.

    One of concatenations would choose among many for each element: a transpose of that is slow.
    """

    def chains(join: _Join) -> bool:
        limit = _BROADCAST if any(source in joins for source in join.inputs) else _INJECTIVE
        return all(
            _pattern(module, reader) <= limit
            and (_kernel(reader) not in joins or _kernel(reader) in chained)
            for reader in join.readers
        )

    return any(map(chains, joins[kernel]))


def _through_reshapes(variable: Any, readers: Mapping[Any, Any], module: IRModule) -> list[Any]:
    """The values that read a tensor, or a view of it."""
    found: list[Any] = []
    for value, result in readers[variable]:
        kernel = _kernel(value)
        view = kernel is not None and reshapes(module[kernel])
        found += _through_reshapes(result, readers, module) if view else [value]
    return found


def _readers(function: Any) -> Mapping[Any, list[tuple[Any, Any]]]:
    """The values that read each variable of a function, each with what it is bound to.

    The function's result counts as one, bound to nothing.
    """
    readers: dict[Any, list[tuple[Any, Any]]] = defaultdict(list)
    every = [(binding.value, binding.var) for binding in bindings_of(function)]
    for value, result in [*every, (function.body.body, None)]:
        for var in relax.analysis.free_vars(value):
            readers[var].append((value, result))
    return readers


def _variables(index: Any) -> list[Any]:
    found: list[Any] = []
    structural_walk(index, (tirx.Var, found.append))
    return found


def _kernel(value: Any) -> Any:
    """The loop nest that a binding calls, or None."""
    return value.args[0] if operator(value) == "call_tir" else None


def _pattern(module: Any, value: Any) -> int:
    kernel = _kernel(value)
    return _OPAQUE if kernel is None else int(module[kernel].attrs["op_pattern"])


def _stored(module: IRModule, function: Any) -> Any:
    """Let what is to be stored be seen outside its dataflow: TVM then ends a group there.

    That is what is cast to 8 bits, what would be computed again for each reader's element, and what
    would make a long expression of several.
    """
    again = _recomputed.repeated(module, function) | _long_expressions.grown(module, function)
    stored = {
        binding.var: relax.Var(binding.var.name, binding.var.ty)
        for binding in bindings_of(function)
        if isinstance(binding.var, relax.DataflowVar)
        and (binding.var in again or _narrows(binding.value))
    }
    if not stored:
        return function
    return structural_map(function, (relax.DataflowVar, lambda var: stored.get(var, var)))


def _narrows(value: Any) -> bool:
    """Whether a loop nest makes bytes of wider numbers."""
    if operator(value) != "call_tir" or not _types(value) <= _NARROW:
        return False
    return any(not _types(operand) <= _NARROW for operand in value.args[1].fields)


def _types(expr: Any) -> set[str]:
    """The element type of each tensor that an expression is."""
    tensors = expr.ty.fields if isinstance(expr.ty, TupleType) else [expr.ty]
    return {str(tensor.dtype) for tensor in tensors}
