"""Replace splits by slices, and concatenations of adjacent slices by one slice."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import relax

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Graph, operator, rewrite, shape
from hybridc.compiler.kernels.indexing import joins


@dataclass(frozen=True)
class SplitToSlices(Pass):
    """Replace splits by slices, and concatenations of adjacent slices by one slice.

    A slice is read in place, or fused with the kernel that reads it, whereas a split would write
    each of its parts.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Rewrite every part of a split, then what joins them again."""
        return rewrite(rewrite(module, _slice), _join)


def _slice(value: Any, graph: Graph) -> Any:
    if not isinstance(value, tvm.ir.TupleGetItem):
        return None
    split = graph.call(value.tuple_value, "split")
    if split is None or not joins.is_static(split.args[0]) or not joins.is_static(value):
        return None
    axis = int(split.attrs.axis) % split.args[0].ty.ndim
    sizes = [int(part.shape.values[axis]) for part in split.ty.fields]
    begin = sum(sizes[: int(value.index)])
    return _take(split.args[0], axis, begin, begin + sizes[int(value.index)])


def _join(value: Any, graph: Graph) -> Any:
    """A concatenation of fewer operands, where some are slices that lie side by side."""
    if operator(value) != "concat" or value.attrs.axis is None:
        return None
    operands = _operands(value.args[0], graph)
    if not all(joins.is_static(operand) for operand in operands):
        return None
    axis = int(value.attrs.axis) % value.ty.ndim
    merged = list(_merged(operands, axis, graph))
    if len(merged) == len(operands):
        return None
    return merged[0] if len(merged) == 1 else relax.op.concat(merged, axis)


def _merged(operands: Sequence[Any], axis: int, graph: Graph) -> Iterator[Any]:
    """The operands, with each run of neighbours as one slice, or what they are slices of."""
    position = 0
    while position < len(operands):
        source, begin, end = _part(operands[position], axis, graph)
        count = 1
        while position + count < len(operands):
            other, start, stop = _part(operands[position + count], axis, graph)
            if not (other.same_as(source) and start == end):
                break
            end, count = stop, count + 1
        yield operands[position] if count == 1 else _take(source, axis, begin, end)
        position += count


def _part(operand: Any, axis: int, graph: Graph) -> tuple[Any, int, int]:
    """The tensor of which an operand is a part along the axis, and the part's bounds."""
    whole = operand, 0, shape(operand)[axis]
    call = graph.call(operand, "strided_slice")
    begin = joins.slice_begin(call) if call is not None else None
    if call is None or begin is None:
        return whole
    source = call.args[0]
    elsewhere = [i for i in range(len(begin)) if i != axis]
    if any(shape(source)[i] != shape(operand)[i] for i in elsewhere):
        return whole
    return source, begin[axis], begin[axis] + shape(operand)[axis]


def _take(source: Any, axis: int, begin: int, end: int) -> Any:
    if (begin, end) == (0, shape(source)[axis]):
        return source
    return relax.op.strided_slice(source, axes=[axis], begin=[begin], end=[end])


def _operands(tensors: Any, graph: Graph) -> Sequence[Any]:
    value = graph.value(tensors)
    return list(value.fields)
