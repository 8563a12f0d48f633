"""Combine the matrix products that project one tensor onto heads."""

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import (
    Expr,
    Graph,
    bindings_of,
    constant,
    graph_of,
    operator,
    relax_functions,
    shape,
    tidy,
    updated,
    with_blocks,
)

_HEADS_RANK = 4
# Of weights; kernels of attention read parts of all but the first on GPUs alone.
_FLOATS = ("float32", "float16", "bfloat16")


@dataclass(frozen=True)
class CombineProjections(Pass):
    """Combine the matrix products that project one tensor onto heads.

    Queries, keys and values are then computed by one kernel, which reads the tensor once.  They are
    slices of its result, which `fuse-attention` reads in place.  The products combined have
    constant weights, constant biases or none at all, and results that are split into heads next.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every function of the graph."""
        types = _FLOATS[: 1 if context.target.gpu is None else None]
        changed = {
            variable: combined
            for variable, function in relax_functions(module)
            if (combined := _combine(function, types)) is not None
        }
        return tidy(updated(module, changed)) if changed else module


@dataclass(frozen=True)
class _Projection:
    """A product's binding and that of its result, which is behind the bias where there is one."""

    product: Expr
    result: Expr
    weight: Any
    bias: Any


def _combine(function: Expr, types: Collection[str]) -> Expr | None:
    graph = graph_of(function)
    groups: dict[tuple[Expr, bool], list[_Projection]] = defaultdict(list)
    for found in _projections(function, graph, types):
        groups[found.product.value.args[0], found.bias is None].append(found)
    groups = {key: group for key, group in groups.items() if len(group) > 1}
    if not groups:
        return None
    firsts = {group[0].product.var: group for group in groups.values()}
    gone = {found.product.var for group in groups.values() for found in group}
    slices: dict[Expr, Expr] = {}
    blocks = []
    for block in function.body.blocks:
        bindings: list[Expr] = []
        for binding in block.bindings:
            if binding.var in firsts:
                combined, parts = _combined(firsts[binding.var])
                bindings += combined
                slices |= parts
            if binding.var in slices:
                bindings.append(relax.VarBinding(binding.var, slices[binding.var]))
            elif binding.var not in gone:
                bindings.append(binding)
        blocks.append(type(block)(bindings))
    return with_blocks(function, blocks)


def _projections(function: Expr, graph: Graph, types: Collection[str]) -> Iterator[_Projection]:
    """The products with constant weights of some types, whose result is split into heads alone."""
    readers: dict[Expr, list[Expr]] = defaultdict(list)
    for binding in bindings_of(function):
        for variable in relax.analysis.free_vars(binding.value):
            readers[variable].append(binding)
    for binding in bindings_of(function):
        if operator(binding.value) == "matmul" and isinstance(binding, relax.VarBinding):
            found = _projection(binding, readers, graph)
            known = found is not None and found.weight.dtype.name in types
            if found is not None and known and _splits_heads(readers[found.result.var]):
                yield found


def _projection(
    binding: Expr, readers: Mapping[Expr, Sequence[Expr]], graph: Graph
) -> _Projection | None:
    """A product with constant weights, and the bias that alone reads it, where there is one."""
    weight = graph.constant(binding.value.args[1])
    if weight is None or weight.ndim != 2 or binding.var.ty.dtype != weight.dtype.name:
        return None
    if [operator(reader.value) for reader in readers[binding.var]] != ["add"]:
        return _Projection(binding, binding, weight, None)
    if not graph.only_use(binding.var):  # the function gives it to its caller as well
        return None
    (addition,) = readers[binding.var]
    bias = _bias(addition.value, binding.var, weight.shape[1], graph)
    return None if bias is None else _Projection(binding, addition, weight, bias)


def _splits_heads(readers: Sequence[Expr]) -> bool:
    """Whether the only reader is a reshape to heads."""
    kinds = [operator(reader.value) for reader in readers]
    return kinds == ["reshape"] and len(shape(readers[0].var)) == _HEADS_RANK


def _bias(addition: Expr, product: Expr, columns: int, graph: Graph) -> Any:
    """The constant vector that is added to the product."""
    for one, other in (addition.args, reversed(addition.args)):
        vector = graph.constant(other)
        if one.same_as(product) and vector is not None and vector.shape == (columns,):
            return vector
    return None


def _combined(group: Sequence[_Projection]) -> tuple[list[Expr], dict[Expr, Expr]]:
    """The bindings of the product of all weights, and the slice that each result is of it."""
    first = group[0]
    widths = [found.weight.shape[1] for found in group]
    *lead, _ = shape(first.product.var)
    dtype = first.weight.dtype.name
    kind = relax.TensorType((*lead, sum(widths)), dtype)
    weight = constant(np.concatenate([found.weight for found in group], 1), dtype)
    whole = relax.DataflowVar("projections", kind)
    bindings = [relax.VarBinding(whole, relax.op.matmul(first.product.value.args[0], weight))]
    if first.bias is not None:
        bias = constant(np.concatenate([found.bias for found in group]), dtype)
        shifted = relax.DataflowVar("projections", kind)
        bindings.append(relax.VarBinding(shifted, relax.op.add(whole, bias)))
        whole = shifted
    ends = np.cumsum(widths)
    slices = {
        found.result.var: relax.op.strided_slice(
            whole, [len(lead)], [int(end) - width], [int(end)], assume_inbound=True
        )
        for found, width, end in zip(group, widths, ends, strict=True)
    }
    return bindings, slices
