"""Where the slices of ONNX begin and end, and numbers that say so to everybody.

A slice that goes back from before the front begins at the front; numpy, with which ONNX's reference
slices, takes nothing.  One that goes back to the largest integer ends before the front: so ONNX
Runtime has it, after a rule of opset 10 for "all", and no model means the nothing that numpy takes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph.model_file import Proto, copied

# Ends that say "all" whichever way.
ALL = (2**31 - 1, 2**63 - 1)
_LEAST = -(2**63)
Tensors = Mapping[str, Proto]
Place = tuple[int, int, int]  # start, end, step


def bounds(extent: int, place: Place) -> Place:
    """The first index, the one that is no longer taken (-1: before the front), and the step."""
    start, end, step = place
    low, high = (-1, extent - 1) if step < 0 else (0, extent)
    end = _LEAST if step < 0 and end in ALL else end
    start, end = (index + extent if index < 0 else index for index in (start, end))
    furthest = max(extent, 1)
    return (
        min(max(start, 0), max(high, 0)),
        min(max(end, low), high),
        min(max(step, -furthest), furthest),
    )


def plain(node: Proto, constants: Tensors, kind: Proto | None) -> tuple[Proto, Tensors]:
    """A Slice of known operands in numbers that all readers take alike, and these as tensors.

    `kind` is the type of what is sliced.  The node itself and no tensors where it is so already, or
    where nothing is known.
    """
    if node.op_type != "Slice" or node.domain not in ("", "ai.onnx"):
        return node, {}
    given = _operands(node, constants)
    if given is None:
        return node, {}
    *places, axes = given
    made = [
        _plain(_extent(kind, axis), place)
        for place, axis in zip(zip(*places, strict=True), axes, strict=True)
    ]
    starts, ends, steps = (list(column) for column in zip(*made, strict=True))
    if [starts, ends, steps] == places:
        return node, {}
    return _written(node, (starts, ends, axes, steps))


def _operands(node: Proto, constants: Tensors) -> list[list[int]] | None:
    """Starts, ends, steps and axes of a node; None unless all are known, and as many."""
    import onnx

    names = [*node.input[1:], "", ""]
    if len(node.input) < 3 or any(name and name not in constants for name in names):
        return None
    arrays = [onnx.numpy_helper.to_array(constants[n]) if n else None for n in names[:4]]
    count = arrays[0].size if arrays[0] is not None else 0
    defaults = (None, None, range(count), [1] * count)
    starts, ends, axes, steps = (
        list(default or ()) if array is None else [int(value) for value in array.flat]
        for array, default in zip(arrays, defaults, strict=True)
    )
    same = len(starts) == len(ends) == len(axes) == len(steps)
    return [starts, ends, steps, axes] if starts and same else None


def _extent(kind: Proto | None, axis: int) -> int | None:
    """The size of an axis in an ONNX type, None where it is open or not known."""
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    dims = kind.tensor_type.shape.dim
    inside = -len(dims) <= axis < len(dims)
    return int(dims[axis].dim_value) if inside and dims[axis].HasField("dim_value") else None


def _plain(extent: int | None, place: Place) -> Place:
    """The place as it is where all take it alike: ahead, by steps that a kernel can count with."""
    start, end, step = place
    if extent is None:
        return start, _LEAST if step < 0 and end in ALL else end, step
    if 0 <= step <= extent:
        return place
    first, last, step = bounds(extent, place)
    return first, last if last >= 0 else -extent - 1, step


def _written(node: Proto, operands: Sequence[Sequence[int]]) -> tuple[Proto, Tensors]:
    """The node with these operands, in int64 whatever they were: the least may not fit else."""
    import onnx

    made = copied(node)
    del made.input[1:]
    tensors: dict[str, Any] = {}
    for label, values in zip(("starts", "ends", "axes", "steps"), operands, strict=True):
        name = f"{node.output[0]}/{label}"
        tensors[name] = onnx.numpy_helper.from_array(np.array(values, np.int64), name)
        made.input.append(name)
    return made, tensors
