"""Norms with their statistics, of which TVM's importer gives none."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr, Scope, dtype, static
from hybridc.compiler.ir.rewrite import constant


def _layer_norm(c: Call) -> tuple[Expr, Expr, Expr]:
    s, x = c.scope, c["input"]
    rank, count = len(static(x)), len(c["normalized_shape"])
    axes = list(range(rank - count, rank))
    shape = [static(x)[axis] for axis in axes]
    weight = _or_constant(c["weight"], 1, shape, dtype(x))
    bias = _or_constant(c["bias"], 0, shape, dtype(x))
    normed = s.nn.layer_norm(x, weight, bias, axes=axes, epsilon=c["eps"])
    return normed, *_statistics(s, x, axes, c["eps"])


def _group_norm(c: Call) -> tuple[Expr, Expr, Expr]:
    s, x = c.scope, c["input"]
    batch, channels, *image = static(x)
    weight = _or_constant(c["weight"], 1, [channels], dtype(x))
    bias = _or_constant(c["bias"], 0, [channels], dtype(x))
    axes = list(range(2, 2 + len(image)))
    options = {"num_groups": c["group"], "channel_axis": 1, "axes": axes, "epsilon": c["eps"]}
    normed = s.nn.group_norm(x, weight, bias, **options)
    size = channels // c["group"] * prod(image)
    rows = s.reshape(x, [batch, c["group"], size])
    return normed, *(s.squeeze(y, axis=[2]) for y in _statistics(s, rows, [2], c["eps"]))


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
        operands = (input, weight, bias, running_mean, running_var, momentum, eps)
        return ops._native_batch_norm_legit_no_training(*operands)[0]
    return ops._native_batch_norm_legit.no_stats(input, weight, bias, True, momentum, eps)[0]


def _by_batch(  # noqa: PLR0913, PLR0917 - torch's own signature
    input: Any,  # noqa: A002
    weight: Any,
    bias: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Any, Any, Any]:
    """By the mean and deviation of the batch, which are given too."""
    del training, momentum
    mean, variance = _moments(input)
    normed, deviation = _normed(input, mean, variance, weight, bias, eps)
    return normed, mean, deviation


def _functional_batch_norm(  # noqa: PLR0913, PLR0917 - torch's own signature
    input: Any,  # noqa: A002
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    training: bool,
    momentum: float,
    eps: float,
) -> tuple[Any, ...]:
    """The result, its statistics where they are the batch's, and the running ones as they go on.

    The running variance is the unbiased one.
    """
    if not training:
        normed, _ = _normed(input, running_mean, running_var, weight, bias, eps)
        nothing = input.new_zeros(0)
        return normed, nothing, nothing, running_mean.clone(), running_var.clone()
    mean, variance = _moments(input)
    normed, deviation = _normed(input, mean, variance, weight, bias, eps)
    count = input.numel() // input.shape[1]
    unbiased = variance * (count / max(count - 1, 1))
    new_mean = running_mean + momentum * (mean - running_mean)
    new_variance = running_var + momentum * (unbiased - running_var)
    return normed, mean, deviation, new_mean, new_variance


def _moments(x: Any) -> tuple[Any, Any]:
    """Mean and variance of each channel, the second axis."""
    axes = [axis for axis in range(x.ndim) if axis != 1]
    centred = x - x.mean(axes, keepdim=True)
    return x.mean(axes), (centred * centred).mean(axes)


def _normed(  # noqa: PLR0913, PLR0917 - what a norm is made of
    x: Any, mean: Any, variance: Any, weight: Any, bias: Any, eps: float
) -> tuple[Any, Any]:
    """The norm, and one over the deviation."""
    shape = (1, -1, *[1] * (x.ndim - 2))
    deviation = torch.rsqrt(variance + eps)
    scale = deviation if weight is None else deviation * weight
    normed = (x - mean.reshape(shape)) * scale.reshape(shape)
    return (normed if bias is None else normed + bias.reshape(shape)), deviation


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        "_native_batch_norm_legit.no_stats": _by_batch,
        "_native_batch_norm_legit_functional.default": _functional_batch_norm,
        "batch_norm.default": _batch_norm,
    }
)
CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {
        "native_group_norm.default": _group_norm,
        "native_layer_norm.default": _layer_norm,
    }
)
