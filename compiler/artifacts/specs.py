"""Specs of inputs and outputs as JSON data, written and read."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any

from hybridc.compiler.artifacts.weights import DTYPES
from hybridc.compiler.dims import Dim, Size, checked
from hybridc.compiler.errors import ArtifactError, InputError
from hybridc.compiler.model import OpaqueSpec, Span, TensorSpec

_MOST_AXES = 64  # numpy's
_MOST_ELEMENTS = 2**59  # of 8 bytes, so that all of them can be counted in 64 bits
_LARGEST = 127  # of a span: what every type of integers holds but those of less than a byte
_DTYPE_NAMES = frozenset(map(str, DTYPES.values()))


def to_json(spec: TensorSpec) -> dict[str, Any]:
    """A tensor's name, shape and dtype; the type and the sizes of what is opaque."""
    if isinstance(spec, OpaqueSpec):
        sizes = None if spec.sizes is None else list(spec.sizes)
        return {"name": spec.name, "type": spec.type, "sizes": sizes}
    told = {"name": spec.name, "shape": list(map(_size_data, spec.shape)), "dtype": spec.dtype}
    return told if spec.span is None else {**told, "span": list(spec.span)}


def _size_data(size: Size) -> Any:
    """A number; of an open size the name and the bounds."""
    if not isinstance(size, Dim):
        return size
    told = {"size": size.name, "low": size.low, "high": size.high, "at": size.usual}
    told |= {} if size.step == 1 else {"step": size.step}
    return {**told, "parts": list(size.parts), "plus": size.plus} if size.parts else told


def from_json(entries: Sequence[object]) -> tuple[TensorSpec, ...]:
    """Read what `to_json` wrote; raise ArtifactError if it is something else."""
    return tuple(map(_spec, entries))


def _spec(entry: object) -> TensorSpec:
    match entry:
        case {"name": str(name), "shape": list(shape), "dtype": str(dtype)} if (
            dtype in _DTYPE_NAMES and len(shape) <= _MOST_AXES
        ):
            sizes = tuple(map(_size, shape))
            if prod(size for size in sizes if isinstance(size, int)) > _MOST_ELEMENTS:
                raise ArtifactError(f"the manifest describes a tensor wrongly: {entry!r:.60}")
            return TensorSpec(name, sizes, dtype, span=_span(entry))
        case {"name": str(name), "type": str(kind), "sizes": None}:
            return OpaqueSpec(name, type=kind)
        case {"name": str(name), "type": str(kind), "sizes": list(sizes)} if all(
            size is None or _is_size(size) for size in sizes
        ):
            return OpaqueSpec(name, type=kind, sizes=tuple(sizes))
        case _:
            raise ArtifactError(f"the manifest describes a tensor wrongly: {entry!r:.60}")


def _span(entry: object) -> Span | None:
    match entry:
        case {"span": [int(least), int(most)]} if 0 <= least <= most <= _LARGEST:
            return least, most
        case {"span": _}:
            raise ArtifactError(f"the manifest describes integers wrongly: {entry!r:.60}")
        case _:
            return None


def _size(entry: object) -> Size:
    match entry:
        case int(size) if _is_size(size):
            return size
        case {"size": str(name), "low": int(low), "high": high, "at": usual, **more} if all(
            bound is None or _is_size(bound) for bound in (low, high, usual)
        ) and isinstance(step := more.get("step", 1), int):
            try:
                return checked(Dim(name, low, high, usual, step, *_sum(more)))
            except InputError as error:
                raise ArtifactError(
                    f"the manifest describes a size wrongly: {entry!r:.60}"
                ) from error
        case _:
            raise ArtifactError(f"the manifest describes a size wrongly: {entry!r:.60}")


def _sum(more: Mapping[Any, object]) -> tuple[tuple[str, ...], int]:
    """The sizes, and the number, of which one is the sum."""
    match more:
        case {"parts": list(parts), "plus": int(plus)}:
            return tuple(map(str, parts)), plus
        case _:
            return (), 0


def _is_size(size: object) -> bool:
    return type(size) is int and size >= 0
