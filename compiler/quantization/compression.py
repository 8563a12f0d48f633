"""Weights that a file holds in few bits, and from which constants are made when it is loaded.

They are integers of 8 or 4 bits with scales, or numbers of 16 bits.  Kernels that multiply each
weight often are as fast as their arithmetic: there is nothing to gain by unpacking weights in each
call, and Winograd's are up to four times as many as the model's.  So they read float32, in the
order that they like best, and only the file is small.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import ml_dtypes
import numpy as np
from blake3 import blake3

from hybridc.compiler.errors import ArtifactError
from hybridc.compiler.kernels.convolutions import winograd_transforms
from hybridc.compiler.model import Array
from hybridc.compiler.quantization import group_quantization
from hybridc.compiler.quantization.group_quantization import Grouped

INTEGERS, SCALES, NUMBERS = "integers", "scales", "numbers"
# The sides of Winograd's tiles for which weights are transformed; 0 leaves them as they are.
_SIDES = (0, 2, 4)
_WINDOW = (3, 3)
_HALF = 16  # bits


@dataclass(frozen=True, eq=False)
class Compressed:
    """A constant of float32 by the integers and scales that stand for it.

    `integers` and `scales` are what `group_quantization.packed` made of panels of `shape`,
    `[panels, ..., width]`.  Of 3x3 windows the constant may be Winograd's transform, for tiles of
    `side` x `side` outputs.
    """

    integers: Array
    scales: Array
    bits: int
    shape: tuple[int, ...]
    side: int = 0

    def constant(self) -> Array:
        """The constant, on an aligned address."""
        from hybridc.compiler.runtime.tensors import empty  # TVM takes its time

        panels, groups, width = self.scales.shape
        integers = group_quantization.unpacked(self.integers, self.bits)
        grouped = integers.reshape(panels, groups, -1, width)
        whole = empty(grouped.shape, np.dtype(np.float32))
        np.multiply(grouped, self.scales[:, :, np.newaxis].astype(np.float32), out=whole)
        inputs = prod(self.shape) // (panels * width)
        flat = whole.reshape(panels, -1, width)
        if inputs < flat.shape[1]:  # zeros behind the last group
            held, flat = flat, empty((panels, inputs, width), flat.dtype)
            flat[...] = held[:, :inputs]
        made = flat.reshape(self.shape)
        return winograd_transforms.transform_filter(made, self.side) if self.side else made

    def tensors(self, name: str) -> dict[str, Array]:
        """What a file holds in place of a constant of that name."""
        return {f"{name}.{INTEGERS}": self.integers, f"{name}.{SCALES}": self.scales}

    def to_json(self, name: str) -> dict[str, Any]:
        """All but the arrays, as JSON data, for a constant of that name."""
        return {"name": name, "bits": self.bits, "shape": list(self.shape), "side": self.side}


@dataclass(frozen=True, eq=False)
class Halves:
    """A constant of float32 by its `numbers` of 16 bits.

    Of 3x3 windows it may be their transform for Winograd's tiles of `side` x `side` outputs.
    """

    numbers: Array
    side: int = 0

    def constant(self) -> Array:
        """The constant, on an aligned address."""
        from hybridc.compiler.runtime.tensors import empty  # TVM takes its time

        made = empty(self.numbers.shape, np.dtype(np.float32))
        made[...] = self.numbers
        return winograd_transforms.transform_filter(made, self.side) if self.side else made

    def tensors(self, name: str) -> dict[str, Array]:
        """What a file holds in place of a constant of that name."""
        return {f"{name}.{NUMBERS}": self.numbers}

    def to_json(self, name: str) -> dict[str, Any]:
        """All but the numbers, as JSON data, for a constant of that name."""
        return {"name": name, "bits": _HALF, "side": self.side}


# What stands for constants, by their digests: of rounded weights in their own order, and of what
# packing made of these.  No pass between the two changes a weight.  Widened weights were all of the
# type.
Known = dict[bytes, Grouped | Compressed | Halves | np.dtype[Any]]


def add(known: Known, weight: Array, grouped: Grouped) -> None:
    """Note which integers stand for `weight`, `[K, N]` or channels last `[N, KH, KW, I]`."""
    known[_digest(weight)] = grouped
    if weight.shape[1:-1] == (1, 1):  # is multiplied as a matrix too
        known[_digest(weight[:, 0, 0].T)] = grouped


def widened(known: Known, weight: Array) -> Array:
    """Weights of 16 bits in float32, of which a file holds what they were."""
    wide = np.ascontiguousarray(weight.astype(np.float32))
    # As `[K, N]` they are multiplied as a matrix too.
    for form in (wide, wide[:, 0, 0].T) if wide.shape[1:-1] == (1, 1) else (wide,):
        known.setdefault(_digest(form), weight.dtype)
    return wide


def holds(known: Known, weight: Array) -> bool:
    """Whether integers stand for a weight."""
    return _digest(weight) in known if known else False


def follow(
    known: Known, weight: Array, pack: Callable[[Array], Array], made: Array, side: int = 0
) -> None:
    """Note that `pack(weight)`, `[panels, ..., width]`, became a constant.

    It is that itself, or its transform for Winograd's tiles of a `side`.
    """
    grouped = known.get(_digest(weight)) if known else None
    if isinstance(grouped, np.dtype):
        known.setdefault(_digest(made), Halves(pack(weight).astype(grouped), side))
    if not isinstance(grouped, Grouped):
        return
    integers = _as_weight(grouped, weight.shape)
    panels = pack(integers.astype(np.float32)).astype(np.int8)
    if (packed := _in_panels(panels, grouped)) is not None:
        shape = panels.shape if side else made.shape
        known[_digest(made)] = Compressed(*packed, grouped.bits, shape, side)


def of(known: Known, constant: Array) -> Compressed | Halves | None:
    """What stands for a constant; None where it is not of rounded weights."""
    found = known.get(_digest(constant)) if known else None
    if isinstance(found, np.dtype):
        return Halves(constant.astype(found))
    if not isinstance(found, Grouped):
        return found
    width = 1 if constant.ndim > 2 else constant.shape[1]
    packed = group_quantization.packed(found, width)
    return Compressed(*packed, found.bits, constant.shape)


def read(
    entries: Sequence[object], tensors: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Compressed | Halves]]:
    """The weights among a file's tensors, in their order, and those of them that it compresses.

    `entries` are what `Compressed.to_json` gave.  Raises ArtifactError where they and the tensors
    do not fit each other.
    """
    found = dict(_checked(entry, tensors) for entry in entries)
    weights: dict[str, Array] = {}
    for name, array in tensors.items():
        base, _, part = name.rpartition(".")
        if base not in found:
            weights[name] = array
        elif part in (INTEGERS, NUMBERS):
            weights[base] = found[base].constant()
    return weights, found


def _checked(entry: object, tensors: Mapping[str, Array]) -> tuple[str, Compressed | Halves]:
    """A compressed weight as a file has it, and its name, if its parts fit each other."""
    match entry:
        case {
            "name": str(name),
            "bits": int(bits),
            "shape": list(shape),
            "side": int(side),
        } if (
            (integers := tensors.get(f"{name}.{INTEGERS}")) is not None
            and (scales := tensors.get(f"{name}.{SCALES}")) is not None
            and bits in group_quantization.LEVELS
            and all(type(extent) is int and extent > 0 for extent in shape)
            and _fit(integers, scales, bits, shape)
            and side in _SIDES
            and (not side or tuple(shape[1:3]) == _WINDOW)
        ):
            return name, Compressed(integers, scales, bits, tuple(shape), side)
        case {"name": str(name), "bits": int(bits), "side": int(side)} if (
            bits == _HALF
            and (numbers := tensors.get(f"{name}.{NUMBERS}")) is not None
            and numbers.dtype.name in ("float16", "bfloat16")
            and side in _SIDES
            and (not side or numbers.shape[1:3] == _WINDOW)
        ):
            return name, Halves(numbers, side)
        case _:
            raise ArtifactError(f"the manifest describes no weights by {entry!r:.60}")


def _fit(integers: Array, scales: Array, bits: int, shape: list[int]) -> bool:
    """Whether panels of a shape may be made of integers and scales."""
    share = group_quantization.per_element(bits)
    kinds = np.dtype(np.int8 if share == 1 else np.int32), np.dtype(ml_dtypes.bfloat16)
    if (integers.dtype, scales.dtype) != kinds or (integers.ndim, scales.ndim) != (3, 3):
        return False
    (panels, held, width), groups = integers.shape, scales.shape[1]
    outputs = panels * width
    return (
        (scales.shape[0], scales.shape[2]) == (panels, width)
        and 0 < groups <= held * share
        and held * share % groups == 0
        and prod(shape) % max(outputs, 1) == 0
        and prod(shape) <= outputs * held * share
    )


def _as_weight(grouped: Grouped, shape: tuple[int, ...]) -> Array:
    """The integers in the place of the weights that they stand for."""
    integers = grouped.integers[: grouped.inputs]
    return integers.T.reshape(shape) if len(shape) > 2 else integers


def _in_panels(panels: Array, grouped: Grouped) -> tuple[Array, Array] | None:
    """Integers in panels `[panels, ..., width]`, and scales beside them, as a file holds them.

    None where packing has put other inputs beside each other, for which the groups do not hold.
    """
    count, *window, width = panels.shape
    inputs, (groups, outputs) = prod(window), grouped.scales.shape
    if groups > 1 and inputs != grouped.inputs:
        return None
    share = group_quantization.per_element(grouped.bits)
    size = grouped.size if groups > 1 else -(-inputs // share) * share
    integers = np.zeros((groups * size, count * width), np.int8)
    flat = panels.reshape(count, inputs, width)
    integers[:inputs] = flat.swapaxes(0, 1).reshape(inputs, count * width)
    scales = np.zeros((groups, count * width), np.float32)
    scales[:, :outputs] = grouped.scales
    return group_quantization.packed(Grouped(integers, scales, size, inputs, grouped.bits), width)


def _digest(array: Array) -> bytes:
    state = blake3(f"{array.dtype} {array.shape};".encode())
    state.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return state.digest()
