"""Specs of inputs and outputs as JSON data, written and read."""

from collections.abc import Sequence
from typing import Any

from hybridc.compiler.errors import ArtifactError
from hybridc.compiler.model import OpaqueSpec, TensorSpec
from hybridc.compiler.weights import DTYPES

_DTYPE_NAMES = frozenset(map(str, DTYPES.values()))


def to_json(spec: TensorSpec) -> dict[str, Any]:
    """A tensor's name, shape and dtype; the type and the sizes of what is opaque."""
    if isinstance(spec, OpaqueSpec):
        sizes = None if spec.sizes is None else list(spec.sizes)
        return {"name": spec.name, "type": spec.type, "sizes": sizes}
    return {"name": spec.name, "shape": list(spec.shape), "dtype": spec.dtype}


def from_json(entries: Sequence[object]) -> tuple[TensorSpec, ...]:
    """Read what `to_json` wrote; raise ArtifactError where it is something else."""
    return tuple(map(_spec, entries))


def _spec(entry: object) -> TensorSpec:
    match entry:
        case {"name": str(name), "shape": list(shape), "dtype": str(dtype)} if (
            all(map(_is_size, shape)) and dtype in _DTYPE_NAMES
        ):
            return TensorSpec(name, tuple(shape), dtype)
        case {"name": str(name), "type": str(kind), "sizes": None}:
            return OpaqueSpec(name, type=kind)
        case {"name": str(name), "type": str(kind), "sizes": list(sizes)} if all(
            size is None or _is_size(size) for size in sizes
        ):
            return OpaqueSpec(name, type=kind, sizes=tuple(sizes))
        case _:
            raise ArtifactError(f"the manifest describes no tensor by {entry!r:.60}")


def _is_size(size: object) -> bool:
    return type(size) is int and size >= 0
