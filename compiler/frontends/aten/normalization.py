"""Norms with their statistics, of which TVM's importer gives none."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr, Scope, dtype, static
from hybridc.compiler.ir.rewrite import constant

_WEIGHTS = ("weight", "bias", "running_mean", "running_var")


def _layer_norm(c: Call) -> tuple[Expr, ...]:
    s, x = c.scope, _operand(c)
    rank, count = len(static(x)), len(c["normalized_shape"])
    axes = list(range(rank - count, rank))
    shape = [static(x)[axis] for axis in axes]
    weight = _or_constant(c["weight"], 1, shape, dtype(x))
    bias = _or_constant(c["bias"], 0, shape, dtype(x))
    normed = s.nn.layer_norm(x, weight, bias, axes=axes, epsilon=c["eps"])
    return _as_torch_has_them(c, normed, *_statistics(s, x, axes, c["eps"]))


def _group_norm(c: Call) -> tuple[Expr, ...]:
    s, x = c.scope, _operand(c)
    batch, channels, *image = static(x)
    weight = _or_constant(c["weight"], 1, [channels], dtype(x))
    bias = _or_constant(c["bias"], 0, [channels], dtype(x))
    axes = list(range(2, 2 + len(image)))
    options = {"num_groups": c["group"], "channel_axis": 1, "axes": axes, "epsilon": c["eps"]}
    normed = s.nn.group_norm(x, weight, bias, **options)
    size = channels // c["group"] * prod(image)
    rows = s.reshape(x, [batch, c["group"], size])
    moments = (s.squeeze(y, axis=[2]) for y in _statistics(s, rows, [2], c["eps"]))
    return _as_torch_has_them(c, normed, *moments)


def _by_running_statistics(c: Call) -> tuple[Expr, ...]:
    """A batch norm as it is after training; the statistics of the batch are empty."""
    s, x = c.scope, _operand(c)
    channels = [static(x)[1]]
    weight = _or_constant(c["weight"], 1, channels, dtype(x))
    bias = _or_constant(c["bias"], 0, channels, dtype(x))
    given = (c["running_mean"], c["running_var"])
    made = s.nn.batch_norm(x, weight, bias, *given, axis=1, epsilon=c["eps"], training=False)
    normed = s.emit(relax.TupleGetItem(made, 0))
    nothing = (constant(np.zeros(shape), kind) for shape, kind in c.results[1:])
    return *_as_torch_has_them(c, normed), *nothing


def _operand(c: Call) -> Expr:
    """The input, of the type of the weights: autocast leaves these wider than what they scale."""
    x = c["input"]
    known = c.arguments
    kinds = {dtype(known[name]) for name in _WEIGHTS if known.get(name) is not None}
    if not kinds - {dtype(x)}:
        return x
    if len(kinds) > 1:
        raise UnsupportedError(f"weights of {' and '.join(sorted(kinds))}")
    return c.scope.astype(x, kinds.pop())


def _as_torch_has_them(c: Call, *results: Expr) -> tuple[Expr, ...]:
    """The first of the results, of torch's types."""
    pairs = zip(results, c.results, strict=False)
    return tuple(c.scope.as_type(y, kind) for y, (_, kind) in pairs)


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
        "_native_batch_norm_legit_no_training.default": _by_running_statistics,
        "native_group_norm.default": _group_norm,
        "native_layer_norm.default": _layer_norm,
    }
)
