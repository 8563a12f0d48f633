"""The loss of connectionist temporal classification (Graves et al. 2006), in its forward half.

Torch's operator cannot be traced, as one of its results has a shape that depends on the data.  Ours
gives the loss alone: `hybridc::alignments`, which a loop nest computes.
"""

from collections.abc import Callable, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Any

import torch
from tvm import tirx

from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.aten.kernels import as_result, call, wide
from hybridc.compiler.frontends.onnx.node import Expr

Tensor = Any  # torch.Tensor

_REDUCTIONS = ("none", "mean", "sum")  # torch's numbers of them are their places

# a[s + 2] is the logarithm of the probability of all ways to place s of the target, which has a
# blank around each label, at the last step; two places that nothing reaches stand before it.  A way
# may leave out a blank between two labels that differ: `past` is 0 there, else -inf.  Places run
# from above, so that one row is enough: s reads itself, s - 1 and s - 2 of the step before.
_FORWARD = """
@T.prim_func(s_tir=True, private=True)
def main(
    p: T.Buffer((t, n, c), "float64"), target: T.Buffer((n, labels), "int64"),
    steps: T.Buffer((n,), "int32"), lengths: T.Buffer((n,), "int32"),
    y: T.Buffer((n,), "float64"),
):
    T.func_attr({"tirx.noalias": True})
    for row in T.serial(n):
        with T.sblock("alignments"):
            b = T.axis.spatial(n, row)
            T.reads(p[0:t, b, 0:c], target[b, 0:labels], steps[b], lengths[b])
            T.writes(y[b])
            a = T.alloc_buffer((places + 2,), "float64")
            past = T.alloc_buffer((places,), "float64")
            label = T.alloc_buffer((places,), "int32")
            best = T.alloc_buffer((1,), "float64")
            for s in T.serial(places + 2):
                a[s] = nowhere
            for s in T.serial(places):
                past[s] = nowhere
                label[s] = blank
                if s % 2 == 1:
                    label[s] = T.min(T.max(T.Cast("int32", target[b, s // 2]), 0), c - 1)
                    if s == 1 or label[s] != label[T.max(s - 2, 0)]:
                        past[s] = T.float64(0)
            a[1] = T.float64(0)  # from where the first step reaches the places 0 and 1
            for i in T.serial(t):
                if i < steps[b]:
                    for r in T.serial(places):
                        best[0] = T.max(
                            T.max(a[top - r + 2], a[top - r + 1]), a[top - r] + past[top - r]
                        )
                        if best[0] > nowhere:
                            a[top - r + 2] = (
                                T.log(
                                    T.exp(a[top - r + 2] - best[0])
                                    + T.exp(a[top - r + 1] - best[0])
                                    + T.exp(a[top - r] + past[top - r] - best[0])
                                )
                                + best[0]
                                + p[i, b, label[top - r]]
                            )
                    a[1] = nowhere
            best[0] = T.max(a[2 * lengths[b] + 2], a[2 * lengths[b] + 1])
            y[b] = T.float64(0) - best[0]
            if best[0] > nowhere:
                y[b] = (
                    T.float64(0)
                    - best[0]
                    - T.log(
                        T.exp(a[2 * lengths[b] + 2] - best[0])
                        + T.exp(a[2 * lengths[b] + 1] - best[0])
                    )
                )
"""


@torch.library.custom_op("hybridc::alignments", mutates_args=())
def _alignments(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    blank: int,
) -> torch.Tensor:
    """The loss of each row of `[steps, rows, classes]` for targets `[rows, labels]`."""
    operands = (log_probs, targets, input_lengths, target_lengths, blank)
    loss: torch.Tensor = torch.ops.aten._ctc_loss.Tensor(*operands)[0]
    return loss


@_alignments.register_fake
def _(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    input_lengths: torch.Tensor,
    target_lengths: torch.Tensor,
    blank: int,
) -> torch.Tensor:
    del targets, input_lengths, target_lengths, blank
    return log_probs.new_empty(log_probs.shape[1])


def ctc_loss(  # noqa: PLR0913, PLR0917 - torch's own signature
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: int = 1,
    zero_infinity: bool = False,
) -> Tensor:
    """Minus the logarithm of the probability of all alignments, as torch reduces it."""
    batched = log_probs.ndim == 3
    rows = log_probs if batched else log_probs.unsqueeze(1)
    steps, lengths = (_lengths(x) for x in (input_lengths, target_lengths))
    if targets.ndim == 1:
        targets = _padded(targets, target_lengths, lengths)
    loss = torch.ops.hybridc.alignments(rows, targets.to(torch.int64), steps, lengths, blank)
    if zero_infinity:
        loss = torch.where(torch.isinf(loss), 0.0, loss)
    if _REDUCTIONS[reduction] == "mean":
        return (loss / lengths.clamp(min=1).to(loss.dtype)).mean()
    if _REDUCTIONS[reduction] == "sum":
        return loss.sum()
    return loss if batched else loss.squeeze(0)


def _loss_by_name(  # noqa: PLR0913, PLR0917 - torch's own signature
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Tensor | Sequence[int],
    target_lengths: Tensor | Sequence[int],
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    number = _REDUCTIONS.index(reduction)
    operands = (log_probs, targets, input_lengths, target_lengths)
    return ctc_loss(*operands, blank, number, zero_infinity)


def _lengths(lengths: Tensor | Sequence[int]) -> Tensor:
    tensor = lengths if isinstance(lengths, torch.Tensor) else torch.tensor(lengths)
    return tensor.to(torch.int64).reshape(-1)


def _padded(targets: Tensor, target_lengths: Tensor | Sequence[int], lengths: Tensor) -> Tensor:
    """Targets one behind another as rows, each as long as the longest may be."""
    longest = (
        targets.shape[0]
        if isinstance(target_lengths, torch.Tensor)
        else max(target_lengths, default=0)
    )
    if not targets.shape[0] or not longest:
        return targets.new_zeros(lengths.shape[0], 1)
    starts = (lengths.cumsum(0) - lengths).unsqueeze(1)
    return targets[(starts + torch.arange(longest)).clamp(max=targets.shape[0] - 1)]


def _forward(c: Call) -> Expr:
    s = c.scope
    t, n, classes = c.shape("log_probs")
    labels = c.shape("targets")[1]
    names = {"t": t, "n": n, "c": classes, "labels": labels, "blank": c["blank"]}
    names |= {"places": 2 * labels + 1, "top": 2 * labels, "nowhere": tirx.const(-inf, "float64")}
    steps = s.astype(s.minimum(s.maximum(c["input_lengths"], 0), t), "int32")
    lengths = s.astype(s.minimum(s.maximum(c["target_lengths"], 0), labels), "int32")
    operands = [wide(s, c["log_probs"]), c["targets"], steps, lengths]
    (alpha,) = call(s, "alignments", _FORWARD, operands, [((n,), "float64")], **names)
    return as_result(s, alpha, *c.results[0])


TRACEABLE: Mapping[Callable[..., Any], Callable[..., Any]] = MappingProxyType(
    {torch.ctc_loss: ctc_loss, torch.nn.functional.ctc_loss: _loss_by_name}
)
CONVERTERS: Mapping[str, Converter] = MappingProxyType({"alignments.default": _forward})
