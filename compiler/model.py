"""A model as every frontend delivers it: Relax module, input and output specs, reference."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridc.compiler.interfaces import IRModule

Array = NDArray[Any]
Feed = Mapping[str, Array]
Reference = Callable[[Feed], list[Array]]


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype (as numpy and ml_dtypes spell it) of an input or output."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    def describe(self) -> str:
        """`x float32[1,3,224,224]`."""
        return f"{self.name} {self.dtype}[{','.join(map(str, self.shape))}]"


@dataclass(frozen=True)
class Model:
    """A static-shape Relax module and what is known about it.

    `module["main"]` takes the inputs in the order of `inputs`, holds every weight as a constant,
    and returns one tensor, or a flat tuple where there are several outputs.  `reference` computes
    the right answer from a feed by input name.  `notes` tell how the model came in.
    """

    name: str
    module: IRModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: Reference
    notes: tuple[str, ...] = ()


def random_feed(inputs: tuple[TensorSpec, ...], seed: int = 0) -> dict[str, Array]:
    """Make inputs: standard normal floats, small non-negative integers, random booleans.

    Integers are 0 or 1, since they are most often token ids, masks or indices.
    """
    rng = np.random.default_rng(seed)
    return {spec.name: _random(spec, rng) for spec in inputs}


def _random(spec: TensorSpec, rng: np.random.Generator) -> Array:
    if spec.dtype == "bool" or "int" in spec.dtype:
        return rng.integers(0, 2, spec.shape).astype(spec.dtype)
    importlib.import_module("ml_dtypes")  # teaches numpy the names bfloat16, float8_…

    return rng.standard_normal(spec.shape).astype(spec.dtype)
