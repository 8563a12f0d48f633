"""Operators computed by numpy, for folding constants without compiling anything.

Only operators whose meaning is the same in numpy and Relax stand here: `round` (which half goes
where), `mod` and the division of integers (the sign) are left to TVM.
"""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.model import Array

Operands = Sequence[Any]  # arrays, shapes as tuples of int, numbers, or lists of these
Attributes = Any
Shape = tuple[int, ...]
Evaluator = Callable[[Operands, Attributes, Shape], Any]  # an array, or None: leave it to TVM


def evaluate(
    name: str, operands: Operands, attributes: Attributes, shape: Shape, dtype: str
) -> Array | None:
    """Compute one operator with a tensor result, or None if numpy is not the right judge.

    Raises ValueError if numpy's result has another shape than Relax says.
    """
    evaluator = _EVALUATORS.get(name)
    if evaluator is None or (name in _FLOAT_ONLY and "float" not in dtype):
        return None
    with np.errstate(all="ignore"):
        computed = evaluator(operands, attributes, shape)
    if computed is None:
        return None
    result = np.asarray(computed)
    if result.shape != shape:
        raise ValueError(f"numpy gives {name} the shape {result.shape}, Relax {shape}")
    return result.astype(dtype, copy=False)


def _elementwise(function: Callable[..., Any]) -> Evaluator:
    return lambda operands, attributes, shape: function(*operands)


def _reduction(function: Callable[..., Any]) -> Evaluator:
    def compute(operands: Operands, attributes: Attributes, shape: Shape) -> Any:
        axis = None if attributes.axis is None else tuple(int(a) for a in attributes.axis)
        return function(operands[0], axis=axis, keepdims=bool(attributes.keepdims))

    return compute


def _reshape(operands: Operands, attributes: Attributes, shape: Shape) -> Any:
    return np.reshape(operands[0], shape)


def _permute_dims(operands: Operands, attributes: Attributes, shape: Shape) -> Any:
    axes = None if attributes.axes is None else [int(axis) for axis in attributes.axes]
    return np.transpose(operands[0], axes)


def _concat(operands: Operands, attributes: Attributes, shape: Shape) -> Any:
    if attributes.axis is None:
        return np.concatenate([part.ravel() for part in operands[0]])
    return np.concatenate(operands[0], int(attributes.axis))


def _take(operands: Operands, attributes: Attributes, shape: Shape) -> Any:
    data, indices = operands
    axis = None if attributes.axis is None else int(attributes.axis)
    extent = data.size if axis is None else data.shape[axis]
    index = np.asarray(indices)
    # Within range all of the operator's modes agree; beyond it they are left to TVM.
    outside = index.size and (index.min() < 0 or index.max() >= extent)
    return None if outside else np.take(data, index, axis)


def _strided_slice(operands: Operands, attributes: Attributes, shape: Shape) -> Any:
    data, axes, begins, ends = operands[:4]
    steps = operands[4] if len(operands) > 4 else [1] * len(axes)
    cut = [slice(None)] * data.ndim
    for axis, begin, end, step in zip(axes, begins, ends, steps, strict=True):
        # An end before the first element has no spelling as a number in numpy.
        before_first = step < 0 and end < -data.shape[axis]
        cut[axis] = slice(begin, None if before_first else end, step)
    return data[tuple(cut)]


def _full(operands: Operands, attributes: Attributes, shape: Shape) -> Any:
    return np.full(shape, operands[1])


def _constant_fill(number: int) -> Evaluator:
    return lambda operands, attributes, shape: np.full(shape, number)


# Results of these are exact or rounded the same way only for floating point; numpy's products of
# bytes are of 16 bits, whatever they are added up in.
_FLOAT_ONLY = frozenset({"divide", "matmul", "mean", "power"})

_EVALUATORS: Mapping[str, Evaluator] = MappingProxyType(
    {
        "abs": _elementwise(np.abs),
        "add": _elementwise(np.add),
        "arange": lambda operands, attributes, shape: np.arange(*operands),
        "astype": _reshape,  # the cast itself is what every result gets
        "broadcast_to": lambda operands, attributes, shape: np.broadcast_to(operands[0], shape),
        "ceil": _elementwise(np.ceil),
        "concat": _concat,
        "cos": _elementwise(np.cos),
        "divide": _elementwise(np.divide),
        "equal": _elementwise(np.equal),
        "exp": _elementwise(np.exp),
        "expand_dims": _reshape,
        "flatten": _reshape,
        "flip": lambda operands, attributes, shape: np.flip(operands[0], int(attributes.axis)),
        "floor": _elementwise(np.floor),
        "full": _full,
        "greater": _elementwise(np.greater),
        "greater_equal": _elementwise(np.greater_equal),
        "less": _elementwise(np.less),
        "less_equal": _elementwise(np.less_equal),
        "log": _elementwise(np.log),
        "logical_and": _elementwise(np.logical_and),
        "logical_not": _elementwise(np.logical_not),
        "logical_or": _elementwise(np.logical_or),
        "matmul": _elementwise(np.matmul),
        "max": _reduction(np.max),
        "maximum": _elementwise(np.maximum),
        "mean": _reduction(np.mean),
        "min": _reduction(np.min),
        "minimum": _elementwise(np.minimum),
        "multiply": _elementwise(np.multiply),
        "negative": _elementwise(np.negative),
        "not_equal": _elementwise(np.not_equal),
        "ones": _constant_fill(1),
        "ones_like": _constant_fill(1),
        "permute_dims": _permute_dims,
        "power": _elementwise(np.power),
        "prod": _reduction(np.prod),
        "reshape": _reshape,
        "rsqrt": _elementwise(lambda x: 1 / np.sqrt(x)),
        "shape_to_tensor": lambda operands, attributes, shape: np.array(operands[0]),
        "sin": _elementwise(np.sin),
        "sqrt": _elementwise(np.sqrt),
        "square": _elementwise(np.square),
        "squeeze": _reshape,
        "stack": lambda operands, attributes, shape: np.stack(operands[0], int(attributes.axis)),
        "strided_slice": _strided_slice,
        "subtract": _elementwise(np.subtract),
        "sum": _reduction(np.sum),
        "take": _take,
        "tanh": _elementwise(np.tanh),
        "tile": lambda operands, attributes, shape: np.tile(
            operands[0], tuple(int(count) for count in attributes.repeats)
        ),
        "where": _elementwise(np.where),
        "zeros": _constant_fill(0),
        "zeros_like": _constant_fill(0),
    }
)
