"""Norms with their statistics, of which TVM's importer gives none."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr, Scope, dtype, static
from hybridc.compiler.rewrite import constant


def _layer_norm(c: Call) -> tuple[Expr, Expr, Expr]:
    s, x = c.scope, c["input"]
    rank, count = len(static(x)), len(c["normalized_shape"])
    axes = list(range(rank - count, rank))
    shape = [static(x)[axis] for axis in axes]
    weight = _or_constant(c["weight"], 1, shape, dtype(x))
    bias = _or_constant(c["bias"], 0, shape, dtype(x))
    made = s.nn.layer_norm(x, weight, bias, axes=axes, epsilon=c["eps"])
    return made, *_statistics(s, x, axes, c["eps"])


def _group_norm(c: Call) -> tuple[Expr, Expr, Expr]:
    s, x = c.scope, c["input"]
    batch, channels, *image = static(x)
    weight = _or_constant(c["weight"], 1, [channels], dtype(x))
    bias = _or_constant(c["bias"], 0, [channels], dtype(x))
    axes = list(range(2, 2 + len(image)))
    options = {"num_groups": c["group"], "channel_axis": 1, "axes": axes, "epsilon": c["eps"]}
    made = s.nn.group_norm(x, weight, bias, **options)
    size = channels // c["group"] * prod(image)
    rows = s.reshape(x, [batch, c["group"], size])
    return made, *(s.squeeze(y, axis=[2]) for y in _statistics(s, rows, [2], c["eps"]))


def _statistics(s: Scope, x: Expr, axes: Sequence[int], epsilon: float) -> tuple[Expr, Expr]:
    """The mean, and one over the deviation; both keep their axes."""
    mean = s.mean(x, axis=list(axes), keepdims=True)
    difference = s.subtract(x, mean)
    variance = s.mean(s.multiply(difference, difference), axis=list(axes), keepdims=True)
    return mean, s.rsqrt(s.add(variance, epsilon))


def _or_constant(value: Expr | None, number: float, shape: Sequence[int], kind: str) -> Expr:
    return constant(np.full(tuple(shape), number), kind) if value is None else value


def _batch_norm(  # noqa: PLR0913, PLR0917 - torch's own signature
    input: Any,  # noqa: A002
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool,
) -> Any:
    """By the statistics given, or in training by those of the batch, which nobody keeps."""
    del cudnn_enabled
    ops = torch.ops.aten
    if not training:
        given = (input, weight, bias, running_mean, running_var, momentum, eps)
        return ops._native_batch_norm_legit_no_training(*given)[0]
    return ops._native_batch_norm_legit.no_stats(input, weight, bias, True, momentum, eps)[0]


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"batch_norm.default": _batch_norm}
)
CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "native_group_norm.default": _group_norm,
        "native_layer_norm.default": _layer_norm,
    }
)
