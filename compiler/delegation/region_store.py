"""Regions in an artifact: their models are members of it, their weights lie with all others.

The manifest lists for each region, in the order of the members, its name, inputs, outputs and
operators, and the name of the tensor that each of its bulky initialisers is.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybridc.compiler.artifacts import specs
from hybridc.compiler.artifacts.archive import region_member
from hybridc.compiler.errors import ArtifactError
from hybridc.compiler.model import Array, Region

_PREFIX = "region."  # of the names of tensors that are no weights of compiled code

Places = tuple[dict[str, str], ...]


def places(regions: Sequence[Region], weights: Mapping[str, Array]) -> Places:
    """For each region, the tensor that holds each of its weights; equal ones are one tensor."""
    return _place(regions, weights)[0]


def added(regions: Sequence[Region], weights: Mapping[str, Array]) -> dict[str, Array]:
    """The tensors that regions need beside the weights of compiled code, by name."""
    return _place(regions, weights)[1]


def without_added(tensors: Mapping[str, Array]) -> dict[str, Array]:
    """The weights of compiled code among all tensors."""
    return {name: array for name, array in tensors.items() if not name.startswith(_PREFIX)}


def describe(regions: Sequence[Region], found: Places) -> list[dict[str, Any]]:
    """What the manifest says of the regions."""
    return [
        {
            "name": region.name,
            "inputs": list(map(specs.to_json, region.inputs)),
            "outputs": list(map(specs.to_json, region.outputs)),
            "operators": dict(region.operators),
            "weights": names,
        }
        for region, names in zip(regions, found, strict=True)
    ]


def read(
    entries: Sequence[object], members: Mapping[str, memoryview], tensors: Mapping[str, Array]
) -> tuple[Region, ...]:
    """Read the regions; raise ArtifactError if manifest, members and tensors do not fit."""
    expected = {region_member(index) for index in range(len(entries))}
    if expected != {name for name in members if name.startswith("region-")}:
        raise ArtifactError(f"the manifest lists {len(entries)} regions, the file contains others")
    return tuple(
        _region(entry, bytes(members[region_member(index)]), tensors)
        for index, entry in enumerate(entries)
    )


def _region(entry: object, proto: bytes, tensors: Mapping[str, Array]) -> Region:
    match entry:
        case {
            "name": str(name),
            "inputs": list(inputs),
            "outputs": list(outputs),
            "operators": dict(operators),
            "weights": dict(weights),
        } if _known(weights, tensors) and all(type(n) is int for n in operators.values()):
            held = {key: tensors[tensor] for key, tensor in weights.items()}
            sides = specs.from_json(inputs), specs.from_json(outputs)
            return Region(name, proto, held, *sides, operators)
        case _:
            raise ArtifactError(f"the manifest describes a region wrongly: {entry!r:.60}")


def _known(weights: Mapping[str, object], tensors: Mapping[str, Array]) -> bool:
    return all(isinstance(name, str) and name in tensors for name in weights.values())


def _place(
    regions: Sequence[Region], weights: Mapping[str, Array]
) -> tuple[Places, dict[str, Array]]:
    if not any(region.weights for region in regions):
        return tuple({} for _ in regions), {}
    alike: dict[Any, list[tuple[str, Array]]] = defaultdict(list)
    for name, array in weights.items():
        alike[_kind(array)].append((name, array))
    new: dict[str, Array] = {}
    found: list[dict[str, str]] = []
    for region in regions:
        names: dict[str, str] = {}
        for key, array in region.weights.items():
            group = alike[_kind(array)]
            name = next((name for name, other in group if _same(array, other)), "")
            if not name:
                name = f"{_PREFIX}{len(new)}"
                new[name] = array
                group.append((name, array))
            names[key] = name
        found.append(names)
    return tuple(found), new


def _kind(array: Array) -> tuple[str, tuple[int, ...]]:
    return str(array.dtype), array.shape


def _same(one: Array, other: Array) -> bool:
    """Whether two arrays of one kind have the same bytes."""
    if one is other:
        return True
    left, right = (np.ascontiguousarray(array).reshape(-1).view(np.uint8) for array in (one, other))
    return np.array_equal(left, right)
