"""Python's numbers beside float64, as tensors that keep their digits.

Torch's ONNX exporter writes numbers in float32.  A double is the sum of three of those, which is
exact where they are added up in float64.
"""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

_FLOAT64 = torch.float64
# Operators that take a tensor for a number: which ones, and the places of the numbers.
_TENSORS: Mapping[str, tuple[str, tuple[int, ...]]] = MappingProxyType(
    {
        **{f"{name}.Tensor": (f"{name}.Tensor", (1,)) for name in ("add", "sub", "mul", "div")},
        **{
            f"{name}.Scalar": (f"{name}.Tensor", (1,))
            for name in ("eq", "ne", "lt", "le", "gt", "ge", "fmod", "remainder")
        },
        "clamp.default": ("clamp.Tensor", (1, 2)),
        "clamp_max.default": ("clamp_max.Tensor", (1,)),
        "clamp_min.default": ("clamp_min.Tensor", (1,)),
        "pow.Tensor_Scalar": ("pow.Tensor_Tensor", (1,)),
        "where.Scalar": ("where.self", (1, 2)),
        "where.ScalarOther": ("where.self", (2,)),
        "where.ScalarSelf": ("where.self", (1,)),
    }
)


def kept(exported: Any) -> Any:
    """The program, with numbers beside float64 as tensors where float32 would round them."""
    found = {node.target for node in exported.graph.nodes if rounded(node) is not None}
    table = {target: function for target in found if (function := _written(target)) is not None}
    if not table:
        return exported
    with torch.no_grad():
        return exported.run_decompositions(table)


def rounded(node: Any) -> float | None:
    """A number of a node that computes in float64, if float32 would round one."""
    values = [each.meta.get("val") for each in (node, *node.all_input_nodes)]
    if all(getattr(value, "dtype", None) != _FLOAT64 for value in values):
        return None
    return next(filter(_is_rounded, tree_leaves((node.args, node.kwargs))), None)


def _is_rounded(number: object) -> bool:
    if not isinstance(number, float) or math.isnan(number):
        return False
    return _narrow(number) != number


def _narrow(number: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.float32(number))


def _parts(number: float) -> tuple[float, float, float] | None:
    """Numbers of float32 whose sum is a double; None where it lies beyond their range."""
    first = _narrow(number)
    if math.isinf(first):
        return None
    second = _narrow(number - first)
    third = number - first - second
    return (first, second, third) if _narrow(third) == third else None


def _written(target: Any) -> Callable[..., Any] | None:
    """What an operator is written with where its numbers are tensors; None where it takes none."""
    name = getattr(target, "__name__", "")
    if name in ("full.default", "full_like.default"):
        return _filled
    if name not in _TENSORS:
        return None
    other, places = _TENSORS[name]
    packet, _, overload = other.partition(".")
    with_tensors = getattr(getattr(torch.ops.aten, packet), overload)

    def call(*args: Any, **options: Any) -> Any:
        kinds = {a.dtype for a in args if isinstance(a, torch.Tensor)} - {torch.bool}
        numbers = {i: args[i] for i in places if len(args) > i and isinstance(args[i], int | float)}
        if kinds != {_FLOAT64} or not any(map(_is_rounded, numbers.values())):
            return NotImplemented
        made = {index: _tensor(float(number)) for index, number in numbers.items()}
        if None in made.values():
            return NotImplemented
        return with_tensors(*(made.get(i, each) for i, each in enumerate(args)), **options)

    return call


def _filled(like: Any, number: float, **options: Any) -> Any:
    """`full` and `full_like`, whose first argument is a size, or a tensor of that size."""
    tensor = isinstance(like, torch.Tensor)
    kind = options.get("dtype") or (like.dtype if tensor else torch.get_default_dtype())
    scalar = _tensor(number) if kind == _FLOAT64 and _is_rounded(number) else None
    return NotImplemented if scalar is None else scalar.expand(like.shape if tensor else like)


def _tensor(number: float) -> Any:
    """A scalar of float64; None where no numbers of float32 make it."""
    parts = _parts(number)
    if parts is None:
        return None
    first, second, third = (torch.full((), part, dtype=_FLOAT64) for part in parts)
    return first + (second + third)
