"""Values that compiled code does not look into, as Python has them, compared.

They are arrays (also of strings, and of sizes that depend on the data), lists, mappings and None.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from hybridc.compiler.assurance import verify
from hybridc.compiler.assurance.verify import Comparison
from hybridc.compiler.errors import WrongAnswerError
from hybridc.compiler.model import Array


def compare(name: str, wanted: Any, got: Any, how: verify.How = verify.USUAL) -> Comparison:
    """Compare two values, the tensors within them by their dtypes; the worst is returned.

    Raises WrongAnswerError if they differ in form, or in a string.
    """
    left, right = _leaves(wanted, name), _leaves(got, name)
    if list(left) != list(right):
        raise WrongAnswerError(
            f"output {name!r} has other parts than expected: {_few(left, right)}"
        )

    def numbers(part: str, wanted: Array, got: Array) -> Comparison:
        return verify.compare(part, wanted, got, how)

    if not left:
        return numbers(name, np.zeros(0, np.int64), np.zeros(0, np.int64))
    return worst([_leaf(part, left[part], right[part], numbers) for part in left])


def worst(found: Sequence[Comparison]) -> Comparison:
    """One that is wrong, else the one with the largest error."""
    return min(found, key=lambda each: (each.ok, -each.max_abs))


def _leaf(
    name: str, wanted: Array, got: Array, numbers: Callable[[str, Array, Array], Comparison]
) -> Comparison:
    """Compare two arrays: strings by themselves, anything else as `numbers` does."""
    if wanted.dtype.kind not in "OSU":
        return numbers(name, wanted, got)
    if wanted.shape != got.shape or not (wanted.astype(str) == got.astype(str)).all():
        raise WrongAnswerError(f"output {name!r} contains other strings than expected")
    same = np.zeros(wanted.shape, np.int8)
    return verify.compare(name, same, same)


def _leaves(value: Any, name: str) -> dict[str, Array]:
    """The arrays in a value, by where they are."""
    if value is None:
        return {f"{name}: none": np.zeros(0, np.int8)}
    if isinstance(value, list):
        parts = ((f"{name}[{index}]", part) for index, part in enumerate(value))
    elif isinstance(value, Mapping):
        parts = ((f"{name}[{key!r}]", value[key]) for key in sorted(value))
    else:
        return {name: np.asarray(value)}
    found = {f"{name}: {type(value).__name__}": np.zeros(0, np.int8)}
    for place, part in parts:
        found.update(_leaves(part, place))
    return found


def _few(left: Mapping[str, Array], right: Mapping[str, Array]) -> str:
    missing, extra = [n for n in left if n not in right], [n for n in right if n not in left]
    faults = [f"no {missing[0]}"] if missing else []
    faults += [f"also {extra[0]}"] if extra else []
    return ", ".join(faults)
