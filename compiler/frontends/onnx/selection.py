"""Operators that choose elements, or make masks, by places."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import relax, te, tirx

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import (
    Converter,
    Expr,
    Node,
    Scope,
    counted,
    dtype,
    factor,
    is_float,
    static,
)
from hybridc.compiler.frontends.onnx_graph import slices
from hybridc.compiler.frontends.scattered_elements import scattered
from hybridc.compiler.ir.rewrite import are_known, constant


def _one_hot(node: Node) -> Expr:
    """Negative indices count from the end; one that is outside matches nothing."""
    indices, values, s = node.inputs[0], node.inputs[2], node.scope
    depth = int(np.ravel(node.value(1))[0])
    rank = len(static(indices)) + 1
    axis = node.get("axis", -1) % rank
    if is_float(indices) or dtype(indices) != "int64":
        indices = s.astype(indices, "int64")
    wrapped = s.where(s.less(indices, 0), s.add(indices, depth), indices)
    shape = [1] * rank
    shape[axis] = depth
    wanted = constant(np.arange(depth).reshape(shape), "int64")
    hot = s.equal(s.expand_dims(wrapped, axis=[axis]), wanted)
    off, on = (s.strided_slice(values, [0], [k], [k + 1]) for k in (0, 1))
    return s.where(hot, s.reshape(on, [1] * rank), s.reshape(off, [1] * rank))


def _eye_like(node: Node) -> Expr:
    import onnx

    rows, columns = node.shape()
    to = node.get("dtype")
    kind = dtype(node.inputs[0]) if to is None else str(onnx.helper.tensor_dtype_to_np_dtype(to))
    k, s = node.get("k", 0), node.scope
    if are_known([rows, columns]):
        return constant(np.eye(rows, columns, k), kind)
    diagonal = s.add(s.reshape(counted(s, rows), [rows, 1]), k)
    return s.astype(s.equal(diagonal, counted(s, columns)), kind)


def _hardmax(node: Node) -> Expr | None:
    """Of an open axis; others are TVM's."""
    x, s, rank = node.inputs[0], node.scope, len(node.shape())
    axis = node.get("axis", -1) % rank
    extent = node.shape()[axis]
    if node.opset < 13 or are_known([extent]):
        return None
    places = s.reshape(counted(s, extent), [extent if a == axis else 1 for a in range(rank)])
    largest = s.argmax(x, axis=axis, keepdims=True)
    return s.astype(s.equal(places, largest), dtype(x))


def _trilu(node: Node) -> Expr:
    """The upper or lower triangle; the diagonal may be known only as the model runs."""
    x, s = node.inputs[0], node.scope
    rows, columns = node.shape()[-2:]
    difference = s.subtract(counted(s, columns), s.reshape(counted(s, rows), [rows, 1]))
    operand = node.input(1)
    k = constant(np.array(0), "int64") if operand is None else s.reshape(operand, [])
    kept = s.greater_equal(difference, k) if node.get("upper", 1) else s.less_equal(difference, k)
    zero = constant(np.array(0), dtype(x))
    if any(are_known([extent]) and not extent for extent in node.shape()):
        return x
    return s.where(kept, x, zero)


def _reverse_sequence(node: Node) -> Expr:
    """The first elements of each sequence in reverse, those behind its end as they are."""
    time, batch = node.get("time_axis", 0), node.get("batch_axis", 1)
    if {time, batch} != {0, 1}:
        raise UnsupportedError(f"time_axis={time}, batch_axis={batch}; they are 0 and 1")
    return reversed_in_time(node.scope, node.inputs[0], node.inputs[1], time)


def reversed_in_time(s: Scope, x: Expr, lengths: Expr, time: int = 0) -> Expr:
    """The first `lengths` steps of each sequence in reverse, those behind them as they are.

    The first two axes are time and batch, `time` the number of the former, so that each step of a
    sequence is a row of memory.
    """
    first, second, *rest = static(x)
    steps, many = (first, second) if time == 0 else (second, first)
    of_time, of_batch = ([-1, 1], [1, -1]) if time == 0 else ([1, -1], [-1, 1])
    at = s.reshape(counted(s, steps), of_time)
    sequence = s.reshape(counted(s, many), of_batch)
    end = s.reshape(s.astype(lengths, "int64"), of_batch)
    places = s.where(s.less(at, end), s.subtract(s.subtract(end, 1), at), at)
    stride, apart = (factor(s, many), 1) if time == 0 else (1, factor(s, steps))
    rows = s.add(s.multiply(places, stride), s.multiply(sequence, apart))
    return s.take(s.reshape(x, [first * second, *rest]), rows, axis=0)


def _tensor_scatter(node: Node) -> Expr:
    """Write the update into the cache, from an index of each batch on; perhaps around its end.

    Each place of the cache takes the element of the update that falls on it, or stays.
    """
    cache, update, s = node.inputs[0], node.inputs[1], node.scope
    shape, count = node.shape(), node.shape(1)
    axis = node.get("axis", -2) % len(shape)
    extent, new = shape[axis], count[axis]
    place = [1] * len(shape)
    place[axis] = extent
    at = constant(np.arange(extent).reshape(place), "int64")
    starts = node.input(2)
    rows = [shape[0], *[1] * (len(shape) - 1)]
    start = (
        constant(np.zeros(rows), "int64")
        if starts is None
        else s.reshape(s.astype(starts, "int64"), rows)
    )
    source = s.subtract(at, start)
    if node.get("mode", "linear") == "circular":
        source = s.floor_mod(source, extent)
    written = s.logical_and(s.greater_equal(source, 0), s.less(source, new))
    inside = s.minimum(s.maximum(source, 0), new - 1)
    taken = s.gather_elements(update, s.broadcast_to(inside, list(shape)), axis=axis)
    return s.where(s.broadcast_to(written, list(shape)), taken, cache)


def _compress(node: Node) -> Expr:
    """A condition that is constant chooses at once."""
    x, s = node.inputs[0], node.scope
    if not isinstance(node.inputs[1], tvm.ir.GenericConst):
        raise UnsupportedError("a condition that depends on the data")
    places = np.flatnonzero(node.value(1))
    axis = node.get("axis")
    x = s.reshape(x, [-1]) if axis is None else x
    rank = len(static(x))
    chosen = relax.const(places.astype(np.int64), "int64")
    return s.take(x, chosen, axis=0 if axis is None else axis % rank)


def _top_k(node: Node) -> Expr | list[Expr]:
    """The k largest or smallest, sorted also where that is not asked for.

    Sorts lack uint64: with its first bit turned it is an int64 of the same order.  Others that they
    lack are sorted as wider ones.
    """
    x, s = node.inputs[0], node.scope
    k, axis = int(np.ravel(node.value(1, node.get("k", 1)))[0]), node.get("axis", -1)
    extent = node.shape()[axis]
    if k < 0 or (are_known([extent]) and k > extent):
        raise UnsupportedError(f"{k} of {extent} elements")
    options = {"axis": axis, "largest": bool(node.get("largest", 1))}
    kind, wide = dtype(x), dtype(x) == "uint64"
    wider = {"int16": "int32", "uint16": "int32", "uint32": "int64"}.get(kind)
    data = _turned(s, x, "int64") if wide else s.astype(x, wider) if wider else x
    both = s.topk(data, **{"k": k, **options}, ret_type="both", dtype="int64")
    values, places = (s.emit(tvm.ir.TupleGetItem(both, part)) for part in (0, 1))
    if wider:
        values = s.astype(values, kind)
    return [_turned(s, values, "uint64") if wide else values, places]


def _scatter_nd(node: Node) -> Expr:
    """Without updates the data stay as they are; others are left to TVM."""
    if not are_known(node.shape(1)[-1:]):
        raise UnsupportedError("indices of an open number of axes")
    return node.inputs[0] if 0 in node.shape(2) else None


def _scatter_elements(node: Node) -> Expr:
    """Indices that reach along all other axes are left to TVM, which takes them all for such."""
    x, index, source = node.inputs[:3]
    axis = node.get("axis", 0) % len(node.shape())
    if 0 in node.shape(2):
        return x
    pairs = enumerate(zip(node.shape(), node.shape(1), strict=True))
    others = [(has, reaches) for at, (has, reaches) in pairs if at != axis]
    if all(tvm_ffi.structural_equal(has, reaches) for has, reaches in others):
        return None
    if not all(map(are_known, [node.shape(), node.shape(1)])):
        raise UnsupportedError("indices of other open sizes than the data")
    how = node.get("reduction", "none")
    return scattered(node.scope, x, axis, index, source, "update" if how == "none" else how)


def _gather_nd(node: Node) -> Expr:
    """Indices of no numbers choose all of the data; others, but for open batches, are TVM's."""
    *outer, chosen = node.shape(1)
    batch = node.get("batch_dims", 0)
    if not are_known([chosen]):
        raise UnsupportedError("indices of an open number of axes")
    if not are_known(node.shape()[:batch]):
        return _from_each_batch(node, batch)
    if chosen != 0 or 0 in outer:
        return None
    rows, rest = list(node.shape()[:batch]), list(node.shape()[batch:])
    s, ones = node.scope, [1] * (len(outer) - batch)
    return s.broadcast_to(s.reshape(node.inputs[0], [*rows, *ones, *rest]), [*outer, *rest])


def _from_each_batch(node: Node, batch: int) -> Expr:
    """The number of the batch as part of each index, since TVM's kernel needs fixed batches."""
    *outer, chosen = node.shape(1)
    rank, s, extents = len(outer), node.scope, node.shape()[batch : batch + chosen]
    if not chosen or not are_known(extents):
        raise UnsupportedError("open batches, and indices of open axes")
    places = [
        s.broadcast_to(
            s.reshape(counted(s, size), [size if a == axis else 1 for a in range(rank + 1)]),
            [*outer, 1],
        )
        for axis, size in enumerate(outer[:batch])
    ]
    index = s.as_type(node.inputs[1], "int64")
    ahead = s.add(index, constant(np.array(extents), "int64"))
    whole = s.concat([*places, s.where(s.less(index, 0), ahead, index)], axis=rank)
    return s.emit(relax.op.gather_nd(node.inputs[0], whole, 0))


def _turned(s: Scope, x: Expr, kind: str) -> Expr:
    """The same bits but for the first, as another type of 64 bits."""

    def kernel(a: Any) -> Any:
        first = tirx.const(np.iinfo(np.int64).min, "int64")

        def element(*index: Any) -> Any:
            bits = tirx.reinterpret("int64", a(*index))
            return tirx.reinterpret(kind, tirx.bitwise_xor(bits, first))

        return te.compute(a.shape, element, name="turned")

    return s.te(kernel, x)


def _slice(node: Node) -> Expr | None:
    """By attributes, as before opset 10; others TVM makes."""
    if node.opset >= 10:
        return None
    starts, ends, shape = node.get("starts"), node.get("ends"), node.shape()
    axes = [axis % len(shape) for axis in node.get("axes", list(range(len(starts))))]
    sides = [
        slices.bounds(shape[axis], (start, end, 1))[:2]
        for axis, start, end in zip(axes, starts, ends, strict=True)
    ]
    ends = [max(side) for side in sides]
    return node.scope.strided_slice(node.inputs[0], axes, [low for low, _ in sides], ends)


def _split(node: Node) -> list[Expr] | None:
    """Parts of which one is empty, which is no part to TVM; others TVM makes."""
    sizes = node.get("split") if node.opset < 13 else node.ints(1)
    if sizes is None or 0 not in sizes:
        return None
    axis = node.get("axis", 0) % len(node.shape())
    ends = np.cumsum(sizes).tolist()
    bounds = zip([0, *ends[:-1]], ends, strict=True)
    return [node.scope.strided_slice(node.inputs[0], [axis], [a], [b]) for a, b in bounds]


def _unsqueeze(node: Node) -> Expr | None:
    """One axis may be a number, which ONNX Runtime takes and torch's exporter writes."""
    axes = node.value(1) if node.opset >= 13 else None
    if axes is None or np.ndim(axes):
        return None
    return node.scope.expand_dims(node.inputs[0], axis=[int(axes)])


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "Compress": _compress,
        "EyeLike": _eye_like,
        "GatherND": _gather_nd,
        "Hardmax": _hardmax,
        "OneHot": _one_hot,
        "ReverseSequence": _reverse_sequence,
        "Scatter": _scatter_elements,
        "ScatterElements": _scatter_elements,
        "ScatterND": _scatter_nd,
        "Slice": _slice,
        "Split": _split,
        "TensorScatter": _tensor_scatter,
        "TopK": _top_k,
        "Trilu": _trilu,
        "Unsqueeze": _unsqueeze,
    }
)
