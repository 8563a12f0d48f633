"""Outputs of the reference that are NaN, of which accuracy says nothing."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridc.compiler.model import Model, OpaqueSpec

NAN = "of the model itself is NaN"
_CURE = "give --calibration data on which it computes numbers"


def told(model: Model, wanted: Sequence[Sequence[Any]], data: str) -> list[str]:
    """A sentence for each output of the reference that holds NaN; `data` says on what.

    NaN equals NaN in every metric, so that a model that computes nothing else would seem accurate.
    """
    found: list[str] = []
    for place, spec in enumerate(model.outputs):
        if isinstance(spec, OpaqueSpec) or not wanted:
            continue
        arrays = [np.asarray(sample[place]) for sample in wanted]
        holes = [int(np.isnan(a).sum()) if a.dtype.kind in "fcV" else 0 for a in arrays]
        if any(holes):
            count = sum(bool(each) for each in holes)
            found.append(
                f"output {spec.name!r} {NAN} in {sum(holes)} of "
                f"{sum(array.size for array in arrays)} elements, in {count} of {len(arrays)} "
                f"samples ({data}): {_CURE}"
            )
    return found
