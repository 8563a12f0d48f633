"""Operators of ONNX on small tensors of integers that follow from open sizes."""

from collections.abc import Callable, Mapping
from functools import reduce
from types import MappingProxyType
from typing import Any

import numpy as np
from tvm import tirx

from hybridc.compiler.frontends.onnx_graph import slices
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_import import size_fractions as fractions
from hybridc.compiler.frontends.onnx_import.size_calls import Call, each, scalar
from hybridc.compiler.frontends.onnx_import.sizes import MOST, Numbers, Sizes, UnknownError

Expr = Any  # tvm.ir.Expr


def take(sizes: Sizes, node: Proto, values: Mapping[str, Expr]) -> bool:
    """Compute a node on what is known of its inputs; whether that could be done.

    Only where a size is open: what is fixed was folded before.
    """
    compute = _ARITHMETIC.get(node.op_type)
    if compute is None or node.domain not in ("", "ai.onnx"):
        return False
    shaped = node.op_type in ("Shape", "Size")
    operands = [sizes.numbers(n, values[n]) if n else None for n in node.input if not shaped]
    missing = any(g is None for g, n in zip(operands, node.input, strict=False) if n)
    if missing or not (shaped or any(n in sizes.known for n in node.input)):
        return False
    if not fractions.suits(node.op_type, operands):
        return False
    options = {**_options(node), "outputs": len(node.output)}
    call = Call(sizes, options, values.get(node.input[0]), operands)
    try:
        numbers = compute(call)
    except UnknownError:
        return False
    parts = numbers if isinstance(numbers, list) else [numbers]
    if len(parts) != len(node.output):
        return False
    sizes.known.update(zip(node.output, (_plain(sizes, part) for part in parts), strict=True))
    return True


def _plain(sizes: Sizes, numbers: Numbers) -> Numbers:
    """The numbers, each as short as it can be said."""
    flat = [sizes.plain(value) for value in numbers.values.flat]
    array = np.empty(numbers.values.shape, object)
    array[...] = np.array([*flat, None], object)[:-1].reshape(numbers.values.shape)
    return Numbers(array, numbers.dtype)


def _options(node: Proto) -> dict[str, Any]:
    import onnx

    return {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}


def _shape(call: Call) -> Numbers:
    extents = call.sizes.shape_of(call.data)
    if extents is None:
        raise UnknownError
    part = extents[call.options.get("start", 0) : call.options.get("end")]
    sizes = np.empty(len(part), object)
    sizes[:] = part
    return Numbers(sizes)


def _size(call: Call) -> Numbers:
    total: Any = 1
    for extent in _shape(call).values:
        total = total * extent
    return Numbers(scalar(total))


def _gather(call: Call) -> Numbers:
    index = call.array(1)
    if not all(isinstance(v, int) for v in index.flat):
        raise UnknownError
    taken = np.take(call.array(), index.astype(int), axis=call.options.get("axis", 0))
    return call.same(taken if isinstance(taken, np.ndarray) else scalar(taken))  # pyright: ignore[reportUnnecessaryIsInstance]


def _slice(call: Call) -> Numbers:
    array = call.array()
    starts, ends = call.ints(1, "starts"), call.ints(2, "ends")
    axes = call.ints(3, "axes") or list(range(len(starts)))
    steps = call.ints(4, "steps") or [1] * len(starts)
    index: list[Any] = [slice(None)] * array.ndim
    for axis, *place in zip(axes, starts, ends, steps, strict=True):
        start, end, step = slices.bounds(array.shape[axis], (place[0], place[1], place[2]))
        index[axis] = slice(start, None if end < 0 else end, step)
    return call.same(array[tuple(index)])


def _split(call: Call) -> list[Numbers]:
    array, axis, count = call.array(), call.options.get("axis", 0), call.options["outputs"]
    lengths = call.ints(1, "split") or [-(-array.shape[axis] // count)] * count
    return list(map(call.same, np.split(array, np.cumsum(lengths)[:-1], axis=axis)))


def _concat(call: Call) -> Numbers:
    parts = [call.array(i) for i in range(len(call.given))]
    return call.same(np.concatenate(parts, axis=call.options["axis"]))


def _unsqueeze(call: Call) -> Numbers:
    array, axes = call.array(), call.ints(1, "axes")
    rank = array.ndim + len(axes)
    return call.same(np.expand_dims(array, tuple(axis % rank for axis in axes)))


def _squeeze(call: Call) -> Numbers:
    axes = call.ints(1, "axes")
    return call.same(np.squeeze(call.array(), None if axes is None else tuple(axes)))


def _transpose(call: Call) -> Numbers:
    return call.same(np.transpose(call.array(), call.options.get("perm")))


def _reshape(call: Call) -> Numbers:
    wanted = call.ints(1, "shape")
    if 0 in wanted:
        raise UnknownError
    return call.same(call.array().reshape(wanted))


def _modulo(call: Call) -> Numbers:
    def rest(a: Any, b: Any) -> Any:
        return a - call.sizes.quotient(a, b) * b

    return call.same(each(rest, call.array(), call.array(1)))


def _compared(compare: Callable[[Any, Any], Any]) -> Callable[[Call], Numbers]:
    def compute(call: Call) -> Numbers:
        def decide(a: Any, b: Any) -> bool:
            return call.sizes.truth(compare(a, b))

        return Numbers(each(decide, call.array(), call.array(1)), "bool")

    return compute


def _equal(a: Any, b: Any) -> Any:
    both = isinstance(a, int) and isinstance(b, int)
    return (
        a == b
        if both
        else tirx.EQ(*(tirx.const(x, "int64") if isinstance(x, int) else x for x in (a, b)))
    )


def _where(call: Call) -> Numbers:
    chosen = each(lambda c, x, y: x if c else y, *(call.array(i) for i in range(3)))
    return Numbers(chosen, call.input(1).dtype)


def _best(pick: Callable[[Any, Any], Any]) -> Callable[[Call], Numbers]:
    def compute(call: Call) -> Numbers:
        result = call.array()
        for i in range(1, len(call.given)):
            result = each(pick, result, call.array(i))
        return call.same(result)

    return compute


def _least(a: Any, b: Any) -> Any:
    return min(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.min(a, b)


def _most(a: Any, b: Any) -> Any:
    return max(a, b) if isinstance(a, int) and isinstance(b, int) else tirx.max(a, b)


def _reduced(join: Callable[[Any, Any], Any]) -> Callable[[Call], Numbers]:
    """What becomes of all numbers of a list, joined one after another."""

    def compute(call: Call) -> Numbers:
        given, array = call.ints(1, "axes"), call.array()
        kept_whole = given is None and call.options.get("noop_with_empty_axes", 0)
        if given not in (None, [0], [-1]) or kept_whole or array.ndim != 1 or not array.size:
            raise UnknownError
        total = scalar(reduce(join, array))
        return call.same(total.reshape(1) if call.options.get("keepdims", 1) else total)

    return compute


def _filled(call: Call) -> Numbers:
    import onnx

    shape = call.ints(0, "")
    value = call.options.get("value")
    fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    if fill.dtype.kind not in "bi" or np.prod(shape) > MOST:
        raise UnknownError
    return Numbers(np.full(shape, fill.item(), object), str(fill.dtype))


def _one_hot(call: Call) -> Numbers:
    """As exporters write which axis is repeated."""
    (places, (depth,)) = call.ints(0, ""), call.ints(1, "")
    off, on = call.array(2)
    if call.options.get("axis", -1) != -1:
        raise UnknownError
    made = np.full((len(places), depth), off, object)
    made[range(len(places)), [place % depth for place in places]] = on
    return Numbers(made.reshape((*call.array().shape, depth)), call.input(2).dtype)


_ARITHMETIC: Mapping[str, Callable[[Call], Numbers | list[Numbers]]] = MappingProxyType(
    {
        **fractions.ARITHMETIC,
        "Concat": _concat,
        "ConstantOfShape": _filled,
        "Equal": _compared(_equal),
        "Gather": _gather,
        "Greater": _compared(lambda a, b: a > b),
        "GreaterOrEqual": _compared(lambda a, b: a >= b),
        "Less": _compared(lambda a, b: a < b),
        "LessOrEqual": _compared(lambda a, b: a <= b),
        "Max": _best(_most),
        "Min": _best(_least),
        "Mod": _modulo,
        "OneHot": _one_hot,
        "ReduceMax": _reduced(_most),
        "ReduceMin": _reduced(_least),
        "ReduceProd": _reduced(lambda a, b: a * b),
        "ReduceSum": _reduced(lambda a, b: a + b),
        "Reshape": _reshape,
        "Shape": _shape,
        "Size": _size,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _squeeze,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
        "Where": _where,
    }
)
