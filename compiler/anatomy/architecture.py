"""What kind of architecture a model is, by the operators that it is made of, and why."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import tvm
from tvm import relax

from hybridc.compiler.anatomy.work import ATTENTION, CONVOLUTION, PRODUCT, RECURRENCE, Operator
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.ir.rewrite import Expr, relax_functions

_MOST = 0.5  # of the FLOPs, for a kind of operator to make the architecture
_MUCH = 0.2  # so that it does not go without saying
_LEAST = 0.005  # less is told as 0 %, and is no reason
_STEPS = 3  # products with the same weights, to be steps of a recurrence
_LARGEST_MASK = 2**22  # elements; larger constants are weights


@dataclass(frozen=True)
class Architecture:
    """The kind, with the reasons for it.

    One of `cnn`, `transformer encoder`, `transformer decoder`, `recurrent`, `mlp`, `mixed`, `none`.
    """

    kind: str
    reasons: tuple[str, ...]


def architecture(module: IRModule, found: Sequence[Operator]) -> Architecture:
    """Judge by the shares of the FLOPs; recurrences and attention are told by their structure."""
    total = sum(each.flops for each in found if each.product or each.kind == RECURRENCE)
    if not total:
        return Architecture("none", ("no convolution and no matrix product",))
    convolutions = _share(found, total, CONVOLUTION)
    recurrent = _recurrent(found) / total + _share(found, total, RECURRENCE)
    layers = sum(each.kind == RECURRENCE for each in found)
    attentions = _attentions(found)
    products = _share(found, total, PRODUCT, ATTENTION)
    candidates = (
        (convolutions, f"convolutions do {convolutions:.0%} of the multiplications"),
        (recurrent, f"weights that are used step after step do {recurrent:.0%}"),
        (layers, f"recurrent layers: {layers} (each direction is one)"),
        (attentions, f"{attentions} products of softmax with activations (attention)"),
        (products, f"matrix products do {products:.0%} of the multiplications"),
    )
    reasons = tuple(reason for share, reason in candidates if share >= _LEAST)
    others = attentions or convolutions >= _MUCH
    if recurrent >= _MOST or (layers and not others):
        return Architecture("recurrent", reasons)
    if (attentions and max(convolutions, recurrent) >= _MUCH) or (layers and not attentions):
        return Architecture("mixed", reasons)
    if attentions:
        return _transformer(module, reasons)
    kind = "cnn" if convolutions >= _MOST else "mlp" if products > 1 - _MUCH else "mixed"
    return Architecture(kind, reasons)


def _transformer(module: IRModule, reasons: tuple[str, ...]) -> Architecture:
    if _causal(module):
        return Architecture("transformer decoder", (*reasons, "a causal mask"))
    return Architecture("transformer encoder", (*reasons, "no causal mask"))


def _share(found: Sequence[Operator], total: float, *kinds: str) -> float:
    return sum(each.flops for each in found if each.kind in kinds) / total


def _recurrent(found: Sequence[Operator]) -> float:
    """FLOPs of products whose weights come up again and again."""
    uses = Counter(each.shared for each in found if each.product and each.shared)
    return sum(each.flops for each in found if each.product and uses.get(each.shared, 0) >= _STEPS)


def _attentions(found: Sequence[Operator]) -> int:
    """Softmaxes between two products of activations; attention operators count as well."""
    count = sum(each.kind == ATTENTION for each in found)
    before = after = 0
    for each in found:
        if each.dynamic and after:
            count, before, after = count + 1, 0, 0
        elif each.dynamic:
            before = 1
        elif each.name.endswith("softmax") and before:
            after = 1
    return count


def _causal(module: IRModule) -> bool:
    """Whether an operator or a constant cuts off what comes later: a triangle of a square."""
    hit: list[bool] = []

    def visit(expr: Expr) -> None:
        if isinstance(expr, tvm.ir.Call) and getattr(expr.op, "name", "") in (
            "relax.tril",
            "relax.triu",
        ):
            hit.append(True)
        elif isinstance(expr, tvm.ir.GenericConst) and not hit:
            hit.extend([True] if _triangular(expr) else [])

    for _, function in relax_functions(module):
        relax.analysis.post_order_visit(function, visit)
    return bool(hit)


def _triangular(constant: Expr) -> bool:
    values = getattr(getattr(constant.ty, "shape", None), "values", None) or ()
    sizes = [int(value) for value in values]
    if len(sizes) < 2 or sizes[-1] != sizes[-2] or sizes[-1] < 2:
        return False
    if np.prod(sizes) > _LARGEST_MASK or str(constant.ty.dtype) == "bfloat16":
        return False
    square = constant.value.numpy().reshape(-1, sizes[-1], sizes[-1])[0]
    upper = square[np.triu_indices(sizes[-1], 1)]
    lower = square[np.tril_indices(sizes[-1])]
    return bool((upper == upper[0]).all() and (lower == lower[0]).all() and upper[0] != lower[0])
