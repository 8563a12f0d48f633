"""How far the reference itself moves when its inputs change by one rounding.

An output that is the small difference of large sums cannot be known to a fixed tolerance: the next
input to the one that was given, as near as fp32 can tell two apart, has another answer.  What lies
within that is no error.  This is the condition of the model at an input, estimated from samples
(C. S. Kenney, A. J. Laub: Small-sample statistical condition estimates, SIAM J. Sci. Comput. 15,
1994); faults of kernels are larger by orders of magnitude.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hybridc.compiler.assurance import verify
from hybridc.compiler.assurance.difference import Floats
from hybridc.compiler.assurance.verify import Comparison
from hybridc.compiler.model import Array, Feed, Model

_RUNS = 8
# Winograd's filtering rounds more than direct convolutions: ResNet-50 is 2 to 3 times as far from
# float64 as its reference.  Of thousands of elements the largest error is some deviations out, and
# the largest of eight movements of an element may be small by chance.
_FACTOR = 10.0


@dataclass(frozen=True)
class Sample:
    """One input with what the reference and the artifact make of it, one output each."""

    feed: Feed
    wanted: Array
    got: Array


def settle(
    model: Model, index: int, samples: Iterable[Sample], found: Comparison, how: verify.How
) -> Comparison:
    """Compare output `index` again where `found` is wrong, with what its condition allows.

    The first sample that stays wrong ends it, so that a faulty kernel costs few calls of the
    reference.  Tolerances that the user set are kept to, and so are the usual ones by models
    without inputs of fp32.
    """
    if found.ok or how != verify.USUAL or found.dtype != "float32" or not _continuous(model):
        return found
    settled = replace(found, differing=0, first=None, wanted=None, got=None)
    for sample in samples:
        if verify.compare(found.output, sample.wanted, sample.got).ok:
            continue
        slack = allowance(model, index, sample)
        again = verify.compare(found.output, sample.wanted, sample.got, slack=slack)
        if not again.ok:
            return found
        settled = replace(settled, condition=max(settled.condition, again.condition))
    return settled


def allowance(model: Model, index: int, sample: Sample) -> Floats:
    """By how much each element of an output may be off, beside its tolerance."""
    rng = np.random.default_rng(0)
    moved = np.zeros(sample.wanted.shape)
    for _ in range(_RUNS):
        answer = model.reference(nudged(sample.feed, rng))[index]
        moved = np.fmax(moved, np.abs(answer.astype(np.float64) - sample.wanted))
    moved = np.where(np.isfinite(moved), moved, 0.0)
    if (
        moved.ndim and moved.size
    ):  # an element that hardly moved by chance is no better known than its row
        moved = np.maximum(moved, np.median(moved, axis=-1, keepdims=True))
    return _FACTOR * moved


def nudged(feed: Feed, rng: np.random.Generator) -> dict[str, Any]:
    """The feed with each number of fp32 moved to one of its two neighbours, or left."""
    return {name: _nudged(value, rng) for name, value in feed.items()}


def _nudged(value: Any, rng: np.random.Generator) -> Any:
    if not _is_float(value):
        return value
    towards = rng.choice(np.array([-np.inf, np.inf], np.float32), value.shape)
    stays = (rng.random(value.shape) < 1 / 3) | (value == 0)  # zeros are often padding or masks
    return np.where(stays, value, np.nextafter(value, towards))


def _continuous(model: Model) -> bool:
    return any(spec.dtype == "float32" for spec in model.inputs)


def _is_float(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.float32
