"""A model as every frontend delivers it: Relax module, input and output specs, reference."""

import importlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridc.compiler import dims
from hybridc.compiler.delegation.host_operators import host_names
from hybridc.compiler.delegation.opaque_random import random_value
from hybridc.compiler.dims import Shape
from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.hardware import room
from hybridc.compiler.interfaces import IRModule

Array = NDArray[Any]
Feed = Mapping[str, Array]
Reference = Callable[[Feed], list[Array]]
Span = tuple[int, int]  # the least and the largest, both included
# Integers are most often token ids, masks or indices, but bytes are numbers of any size and sign.
_SPANS: Mapping[str, Span] = {"int8": (-128, 127), "uint8": (0, 255)}
_USUAL_SPAN: Span = (0, 1)


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype (as numpy and ml_dtypes spell it) of an input or output.

    A size of the shape may be open (`dims.Dim`).  `span` are the integers that random inputs hold,
    None for those that are usual for the type.
    """

    name: str
    shape: Shape
    dtype: str
    span: Span | None = field(default=None, kw_only=True)

    def describe(self) -> str:
        """`x float32[1,3,224,224]`, `x float32[batch:1..64,3]`."""
        sizes = (s.describe() if isinstance(s, dims.Dim) else str(s) for s in self.shape)
        return f"{self.name} {self.dtype}[{','.join(sizes)}]"

    def at(self, sizes: Mapping[str, int]) -> "TensorSpec":
        """The spec with its open sizes, by name, as numbers."""
        return replace(self, shape=dims.fixed(self.shape, sizes))

    @property
    def fixed(self) -> tuple[int, ...]:
        """The shape where all of it is known.  Raises KeyError if a size is open."""
        return dims.fixed(self.shape, {})


@dataclass(frozen=True)
class OpaqueSpec(TensorSpec):
    """A value that compiled code never looks into: only regions of ONNX Runtime's do.

    Strings, sequences and tensors whose sizes depend on the data are such.  In compiled code a
    handle of `shape` and `dtype`, without meaning, stands for it.  `type` is written as ONNX
    Runtime writes it, `seq(tensor(float))`, and `sizes` holds None for what is open.
    """

    shape: Shape = (1,)
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
    """`2 handed to ONNX Runtime: 5 operators (Loop x3, NonZero x2)`; what Python computes, too."""
    counts: Counter[str] = Counter()
    for region in regions:
        counts.update(region.operators)
    own = host_names(counts)
    beside = f"; of these in Python: {', '.join(own)}" if own else ""
    listed = ", ".join(f"{name} x{n}" if n > 1 else name for name, n in counts.most_common())
    total = counts.total()
    word = "operator" if total == 1 else "operators"
    return f"{len(regions)} handed to ONNX Runtime: {total} {word} ({listed}){beside}"


@dataclass(frozen=True)
class Model:
    """A Relax module and what is known about it.

    `module["main"]` takes the inputs in the order of `inputs`, holds every weight as a constant,
    and returns one tensor, or a flat tuple where there are several outputs.  `reference` computes
    the right answer from a feed by input name.  `notes` tell how the model came in.  `regions` are
    the parts that `main` calls by name and ONNX Runtime computes.  `examples` are inputs that the
    model came with, which make sense to it as random ones may not.  `road` is the way in, where
    another may exist.  Where an input chooses between branches, `ways` has the inputs of each, with
    the sizes that make sense to it.
    """

    name: str
    module: IRModule
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    reference: Reference
    notes: tuple[str, ...] = ()
    regions: tuple[Region, ...] = ()
    examples: tuple[Feed, ...] = ()
    road: str = ""
    ways: tuple[tuple[TensorSpec, ...], ...] = ()


def open_dims(specs: Sequence[TensorSpec]) -> dict[str, dims.Dim]:
    """The open sizes of inputs, by name."""
    return dims.named(spec.shape for spec in specs)


def fixed_specs(specs: Sequence[TensorSpec], shapes: Mapping[str, Shape]) -> tuple[TensorSpec, ...]:
    """Inputs with every size a number: those of `shapes`, by input or by size; else the nominal.

    Raises InputError for a name that is neither, and a size that does not fit.
    """
    found = open_dims(specs)
    sizes = dims.nominal(found)
    by_name = {spec.name: spec for spec in specs}
    for name, shape in shapes.items():
        if name not in by_name and name not in found:
            raise InputError(
                f"--shape {name}: no input or open size has this name; "
                f"{hint(name, [*by_name, *found])}"
            )
        wanted: Shape = by_name[name].shape if name in by_name else (found[name],)
        if dims.is_open(shape) or not dims.fits(wanted, dims.fixed(shape, {})):
            raise InputError(
                f"--shape {name}={dims.write(shape)} does not fit {dims.write(wanted)}"
            )
        sizes |= dims.bind({name: (wanted, dims.fixed(shape, {}))})
    return tuple(spec.at(sizes) for spec in specs)


def random_feed(
    inputs: Sequence[TensorSpec], seed: int = 0, sizes: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Make inputs: standard normal floats, any bytes, other integers 0 and 1, random booleans.

    Integers are of the span of their input where it has one.  Open sizes are those of `sizes`, by
    default those to measure at.
    """
    rng = np.random.default_rng(seed)
    at = dims.nominal(open_dims(inputs)) if sizes is None else sizes
    specs = [spec.at(at) for spec in inputs]
    where = f" at {dims.listed(at)}" if at else ""
    room.check(sum(map(_bytes, specs)), f"random inputs{where} take")
    return {spec.name: _random(spec, rng) for spec in specs}


def _bytes(spec: TensorSpec) -> int:
    """Bytes of an input, and of the numbers of 8 bytes each that are drawn for it."""
    return 0 if isinstance(spec, OpaqueSpec) else prod(spec.fixed) * (8 + _itemsize(spec.dtype))


def _itemsize(dtype: str) -> int:
    importlib.import_module("ml_dtypes")  # teaches numpy the names bfloat16, int4, float8_…
    return np.dtype(dtype).itemsize


def _random(spec: TensorSpec, rng: np.random.Generator) -> Any:
    if isinstance(spec, OpaqueSpec):
        return random_value(spec.type, spec.sizes, spec.describe(), rng)
    importlib.import_module("ml_dtypes")  # teaches numpy the names bfloat16, int4, float8_…
    if spec.dtype == "bool" or "int" in spec.dtype:
        span = spec.span or _SPANS.get(spec.dtype, _USUAL_SPAN)
        return rng.integers(*span, spec.fixed, endpoint=True).astype(spec.dtype)
    return rng.standard_normal(spec.fixed).astype(spec.dtype)


def as_array(value: Any) -> Any:
    """Numbers as an array; sequences, maps and what is missing as they are."""
    return value if value is None or isinstance(value, list | dict) else np.asarray(value)
