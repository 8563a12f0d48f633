"""A model as every frontend delivers it: Relax module, input and output specs, reference."""

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.opaque_random import random_value

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
class OpaqueSpec(TensorSpec):
    """A value that compiled code never looks into: only regions of ONNX Runtime's do.

    Strings, sequences and tensors whose sizes depend on the data are such.  In compiled code a
    handle of `shape` and `dtype`, without meaning, stands for it.  `type` is written as ONNX
    Runtime writes it, `seq(tensor(float))`, and `sizes` holds None for what is open.
    """

    shape: tuple[int, ...] = (1,)
    dtype: str = "uint8"
    type: str = ""
    sizes: tuple[int | None, ...] | None = None

    def describe(self) -> str:
        """`s tensor(string)[?,2]`."""
        if self.sizes is None:
            return f"{self.name} {self.type}"
        return (
            f"{self.name} {self.type}[{','.join('?' if s is None else str(s) for s in self.sizes)}]"
        )


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a model that ONNX Runtime computes when the rest is compiled.

    `proto` is an ONNX model, serialised, without the bulk of its initialisers: `weights` holds
    those by name.  `operators` counts what is in it.
    """

    name: str
    proto: bytes = field(repr=False)
    weights: Mapping[str, Array] = field(repr=False)
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    operators: Mapping[str, int]

    @property
    def count(self) -> int:
        """How many operators are in it."""
        return sum(self.operators.values())


def summary(regions: Sequence[Region]) -> str:
    """`2 handed to ONNX Runtime: 5 operators (Loop x3, NonZero x2)`."""
    counts: Counter[str] = Counter()
    for region in regions:
        counts.update(region.operators)
    told = ", ".join(f"{name} x{n}" if n > 1 else name for name, n in counts.most_common())
    total = counts.total()
    word = "operator" if total == 1 else "operators"
    return f"{len(regions)} handed to ONNX Runtime: {total} {word} ({told})"


@dataclass(frozen=True)
class Model:
    """A static-shape Relax module and what is known about it.

    `module["main"]` takes the inputs in the order of `inputs`, holds every weight as a constant,
    and returns one tensor, or a flat tuple where there are several outputs.  `reference` computes
    the right answer from a feed by input name.  `notes` tell how the model came in.  `regions` are
    the parts that `main` calls by name and ONNX Runtime computes.
    """

    name: str
    module: IRModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: Reference
    notes: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()


def random_feed(inputs: tuple[TensorSpec, ...], seed: int = 0) -> dict[str, Any]:
    """Make inputs: standard normal floats, small non-negative integers, random booleans.

    Integers are 0 or 1, since they are most often token ids, masks or indices.
    """
    rng = np.random.default_rng(seed)
    return {spec.name: _random(spec, rng) for spec in inputs}


def _random(spec: TensorSpec, rng: np.random.Generator) -> Any:
    if isinstance(spec, OpaqueSpec):
        return random_value(spec.type, spec.sizes, spec.describe(), rng)
    if spec.dtype == "bool" or "int" in spec.dtype:
        return rng.integers(0, 2, spec.shape).astype(spec.dtype)
    importlib.import_module("ml_dtypes")  # teaches numpy the names bfloat16, float8_…

    return rng.standard_normal(spec.shape).astype(spec.dtype)
