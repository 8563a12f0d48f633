"""Of which outputs a limit on accuracy says something, on the data at hand.

A metric of nothing is perfect: of an output without elements, of rows of a single number.  What
would hold of any artifact is no promise, so that such a limit is refused.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hybridc.compiler.assurance import not_numbers
from hybridc.compiler.assurance.accuracy import has_rows
from hybridc.compiler.assurance.contract import VALIDATE
from hybridc.compiler.assurance.difference import are_classes
from hybridc.compiler.errors import InputError
from hybridc.compiler.model import Array, Model, OpaqueSpec, TensorSpec
from hybridc.compiler.runtime import carriers

SILENT = "says nothing"
_OTHER_DATA = "give --calibration data on which it computes something"
_OTHER_LIMIT = "limit a metric of your own (--validate)"


@dataclass(frozen=True)
class Gap:
    """Why a metric says nothing of an output, and what would change that."""

    why: str
    cure: str


def gap(metric: str, spec: TensorSpec, samples: Sequence[Any]) -> Gap | None:
    """Why the metric says nothing of these answers of the reference; None if it says something."""
    if isinstance(spec, OpaqueSpec):
        return Gap(f"is {spec.describe().partition(' ')[2]}", _OTHER_LIMIT)
    arrays = [carriers.carried(np.asarray(sample)) for sample in samples]
    if not any(array.size for array in arrays):
        return Gap("is empty", _OTHER_DATA)
    if metric == "top1":
        return _gap_of_rows(arrays)
    if not any(np.isfinite(array).any() for array in arrays):
        return Gap("has no finite number", _OTHER_DATA)
    if metric != "max-abs" and not any((np.isfinite(a) & (a != 0)).any() for a in arrays):
        return Gap("is zero throughout", _OTHER_DATA)
    return None


def _gap_of_rows(arrays: Sequence[Array]) -> Gap | None:
    """Why no row has a largest element, where numbers are no classes."""
    if any(are_classes(array[np.newaxis]) for array in arrays):
        return None
    if not any(has_rows(array.shape) for array in arrays):
        return Gap("has single numbers, and no rows of them", _OTHER_LIMIT)
    if not any((array != array[..., :1]).any() for array in arrays):
        return Gap("has rows of equal numbers", _OTHER_DATA)
    return None


def check(
    model: Model, wanted: Sequence[Sequence[Any]], limits: Iterable[str], data: str
) -> list[str]:
    """Notes on outputs of which nothing is known; `limits` are the metrics that are limited.

    `wanted` are the reference's answers, by sample, and `data` says on what.  Raises InputError
    where a limit would be meaningless.
    """
    metrics = sorted(set(limits) - {VALIDATE}) if wanted else []
    holes = not_numbers.told(model, wanted, data)
    if holes and metrics:
        raise InputError("; ".join(holes))
    notes = [*holes]
    for metric in metrics:
        gaps = _gaps(metric, model, wanted)
        said = "; ".join(f"output {name!r} {each.why}" for name, each in gaps)
        if gaps and len(gaps) == len(model.outputs):
            raise InputError(
                f"accuracy {metric} {SILENT} of this model ({data}): {said}; {gaps[0][1].cure}"
            )
        if gaps:
            count = f"{len(gaps)} of {len(model.outputs)} outputs"
            notes.append(f"accuracy {metric} {SILENT} of {count} ({data}): {said}")
    return notes


def _gaps(metric: str, model: Model, wanted: Sequence[Sequence[Any]]) -> list[tuple[str, Gap]]:
    """Outputs of which the metric says nothing, by name."""
    found = [
        (spec.name, gap(metric, spec, [sample[place] for sample in wanted]))
        for place, spec in enumerate(model.outputs)
    ]
    return [(name, each) for name, each in found if each is not None]


def unlimited(
    model: Model, wanted: Sequence[Sequence[Any]], limits: Iterable[str]
) -> frozenset[str]:
    """The outputs of which none of the limited metrics says anything; a user's function may."""
    metrics = set(limits)
    if not metrics or VALIDATE in metrics:
        return frozenset()
    found = [{name for name, _ in _gaps(metric, model, wanted)} for metric in metrics]
    return frozenset.intersection(*map(frozenset, found))
