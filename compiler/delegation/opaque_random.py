"""Random values of types that compiled code does not look into."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from hybridc.compiler.errors import InputError

_WORDS = ("the", "Tree", "42", "")
_SIZES = (2, 3)  # of tensors whose sizes are not known
_LENGTH = 2  # of sequences
_TYPE = re.compile(r"(?P<kind>\w+)\((?P<inner>.*)\)$")
_NUMPY = {"float": "float32", "double": "float64"}


def random_value(
    kind: str, sizes: Sequence[int | None] | None, described: str, rng: np.random.Generator
) -> Any:
    """Make a value of a type as ONNX Runtime writes it; open sizes are small.

    Raises InputError for a type of which none can be made.
    """
    known = None if sizes is None else [_SIZES[0] if size is None else size for size in sizes]
    return _random(kind, known, described, rng)


def _random(
    kind: str, sizes: Sequence[int] | None, described: str, rng: np.random.Generator
) -> Any:
    match = _TYPE.match(kind)
    inner = match["inner"] if match else ""
    match match["kind"] if match else "":
        case "seq":
            return [_random(inner, None, described, rng) for _ in range(_LENGTH)]
        case "optional":
            return _random(inner, sizes, described, rng)
        case "tensor" if inner == "string":
            return rng.choice(np.array(_WORDS, object), _SIZES if sizes is None else sizes)
        case "tensor":
            shape = _SIZES if sizes is None else sizes
            if inner == "bool" or "int" in inner:
                return rng.integers(0, 2, shape).astype(inner)
            return rng.standard_normal(shape).astype(_NUMPY.get(inner, inner))
        case _:
            raise InputError(f"no value of {described} can be made: give --calibration")
