"""Sequences of tensors whose length is known: tuples.

TVM's own converters go through the fields of a variable without an end.
"""

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np
from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, static
from hybridc.compiler.ir.rewrite import constant


def _items(node: Node) -> list[Expr]:
    """The tensors of the first input.  Raises UnsupportedError where their number is not known."""
    value = node.inputs[0]
    if isinstance(value, relax.Tuple):
        return list(value.fields)
    if not isinstance(value.ty, relax.TupleType):
        raise UnsupportedError("a sequence whose length depends on the data")
    return [
        node.scope.emit(relax.TupleGetItem(value, index)) for index in range(len(value.ty.fields))
    ]


def _place(node: Node, index: int, count: int, default: int) -> int:
    """A position among so many, counted from the front."""
    (place,) = node.ints(index, [default])
    if not -count <= place < count:
        raise UnsupportedError(f"a position, {place}, outside of a sequence of {count}")
    return place % count


def _construct(node: Node) -> Expr:
    return relax.Tuple(list(node.inputs))


def _empty(node: Node) -> Expr:
    del node
    return relax.Tuple([])


def _insert(node: Node) -> Expr:
    """Before the element of a position, which may be counted from the back; else at the end."""
    items = _items(node)
    (place,) = node.ints(2, [len(items)])
    if not -len(items) <= place <= len(items):
        raise UnsupportedError(f"a position, {place}, outside of a sequence of {len(items)}")
    items.insert(place, node.inputs[1])
    return relax.Tuple(items)


def _erase(node: Node) -> Expr:
    items = _items(node)
    del items[_place(node, 1, len(items), -1)]
    return relax.Tuple(items)


def _at(node: Node) -> Expr:
    items = _items(node)
    return items[_place(node, 1, len(items), 0)]


def _length(node: Node) -> Expr:
    return constant(np.array(len(_items(node))), "int64")


def _concat(node: Node) -> Expr:
    items, axis, s = _items(node), node.get("axis"), node.scope
    if not items:
        raise UnsupportedError("an empty sequence")
    if node.get("new_axis", 0):
        items = [s.expand_dims(item, axis=axis) for item in items]
    return s.concat(items, axis=axis) if len(items) > 1 else s.emit(items[0])


def _split(node: Node) -> Expr:
    """Parts of given sizes, or of one size; of size 1, perhaps without the axis, by default."""
    x, s = node.inputs[0], node.scope
    shape = static(x)
    axis = node.get("axis", 0) % len(shape)
    operand = node.value(1)
    sizes = np.array(1) if operand is None else np.asarray(operand)
    if sizes.ndim == 0:
        sizes = np.full(-(-shape[axis] // int(sizes)), int(sizes))
    ends = np.minimum(np.cumsum(sizes), shape[axis]).tolist()
    starts = [0, *ends[:-1]]
    parts = [
        s.strided_slice(x, [axis], [start], [end]) for start, end in zip(starts, ends, strict=True)
    ]
    if operand is None and not node.get("keepdims", 1):
        parts = [s.squeeze(part, axis=[axis]) for part in parts]
    return relax.Tuple(parts)


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "ConcatFromSequence": _concat,
        "SequenceAt": _at,
        "SequenceConstruct": _construct,
        "SequenceEmpty": _empty,
        "SequenceErase": _erase,
        "SequenceInsert": _insert,
        "SequenceLength": _length,
        "SplitToSequence": _split,
    }
)
