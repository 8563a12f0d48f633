"""Losses of classifiers; torch's ONNX exporter leaves out how labels are smoothed."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

Tensor = Any  # torch.Tensor
_NONE, _MEAN = 0, 1  # torch's numbers of reductions; a sum is 2


def _cross_entropy(  # noqa: PLR0913, PLR0917 - torch's own signature
    self: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    reduction: int = _MEAN,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
) -> Tensor:
    """The loss of labels, or of shares; smoothed labels are shares of all classes alike."""
    axis = 0 if self.dim() == 1 else 1
    classes = self.shape[axis]
    logs = torch.log_softmax(self, axis)
    weighted = logs if weight is None else logs * _along(weight, axis, self.dim())
    if target.is_floating_point():
        shares = target * (1 - label_smoothing) + label_smoothing / classes
        loss = -(weighted * shares).sum(axis)
        return loss if reduction == _NONE else _reduced(loss, reduction, loss.numel())
    labels = torch.ops.aten.nll_loss_nd(logs, target, weight, reduction, ignore_index)
    if not label_smoothing:
        return labels
    ignored = target == ignore_index
    spread = torch.where(ignored, 0.0, -weighted.sum(axis))
    if reduction != _NONE:
        known = torch.where(ignored, 0, target)
        each = torch.ones_like(spread) if weight is None else weight[known]
        spread = _reduced(spread, reduction, torch.where(ignored, 0.0, each).sum())
    return spread * (label_smoothing / classes) + labels * (1 - label_smoothing)


def _along(weight: Tensor, axis: int, rank: int) -> Tensor:
    return weight.reshape([-1 if each == axis else 1 for each in range(rank)])


def _reduced(loss: Tensor, reduction: int, count: Tensor | int) -> Tensor:
    return loss.sum() / count if reduction == _MEAN else loss.sum()


DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"cross_entropy_loss.default": _cross_entropy}
)
