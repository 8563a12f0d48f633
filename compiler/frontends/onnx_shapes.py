"""Give every dynamic axis of an ONNX model its size."""

from collections.abc import Mapping
from typing import Any

from hybridc.compiler.errors import ModelError, hint
from hybridc.compiler.frontends.onnx_file import OnnxFile, Proto

Shape = tuple[int, ...]
Axes = tuple[int | str, ...]  # a size, or an axis' name; "?" where it has none


def axes(value: Proto) -> Axes | None:
    """Sizes and names of a graph input's axes; None where even their number is not known.

    Raises ModelError for an input that is no tensor.
    """
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelError(f"input {value.name!r} is a {kind or 'value of no type'}, not a tensor")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?"
        for dim in tensor.shape.dim
    )


def bind(file: OnnxFile, shapes: Mapping[str, Shape], opaque: bool = False) -> dict[str, Shape]:
    """Find a static shape for each input, from the model and from `shapes`, by input name.

    An axis that two inputs share by name is given once.  With `opaque`, inputs that are no tensors
    of numbers need no shape, and are left out.  Raises ModelError for an input that the model
    lacks, a shape that contradicts the model, and an axis that has no size.
    """
    values = [v for v in file.inputs() if v.name in shapes or not (opaque and is_opaque(v))]
    given = {value.name: axes(value) for value in values}
    for name in shapes:
        if name not in given:
            raise ModelError(f"--shape {name}: no input has this name; {hint(name, given)}")
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        _match(name, given[name], shape, sizes)
    return {name: shapes.get(name) or _resolve(name, dims, sizes) for name, dims in given.items()}


def is_opaque(value: Proto) -> bool:
    """Whether an input is no tensor of numbers."""
    import onnx

    tensor = value.type.WhichOneof("value") == "tensor_type"
    return not tensor or value.type.tensor_type.elem_type == onnx.TensorProto.STRING


def apply(proto: Proto, shapes: Mapping[str, Shape]) -> None:
    """Write static shapes into a model's inputs and drop what it says of other tensors.

    What an exporter noted of intermediate tensors is often stale once an axis is bound; shape
    inference finds it anew.
    """
    graph = proto.graph
    for value in graph.input:
        if value.name in shapes:
            _set_shape(value, shapes[value.name])
    del graph.value_info[:]
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")


def _match(name: str, dims: Axes | None, shape: Shape, sizes: dict[str, int]) -> None:
    written = f"--shape {name}={write(shape)}"
    if dims is None:
        return
    if len(dims) != len(shape):
        raise ModelError(f"{written}: input {name!r} has {len(dims)} axes: {write(dims)}")
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        known = dim if isinstance(dim, int) else sizes.get(dim)
        if known is not None and known != size:
            what = f"axis {axis}" if isinstance(dim, int) else f"axis {axis} ({dim!r})"
            raise ModelError(f"{written}: {what} of input {name!r} is {known}, not {size}")
        if isinstance(dim, str) and dim != "?":
            sizes[dim] = size


def _resolve(name: str, dims: Axes | None, sizes: Mapping[str, int]) -> Shape:
    if dims is None:
        raise ModelError(f"the shape of input {name!r} is not known; give --shape {name}=1x…")
    found = [dim if isinstance(dim, int) else sizes.get(dim) for dim in dims]
    if None in found:
        axis = found.index(None)
        label = f"axis {axis} ({dims[axis]!r})" if dims[axis] != "?" else f"axis {axis}"
        example = write([1 if size is None else size for size in found])
        raise ModelError(
            f"{label} of input {name!r} has no size; give one, for size 1: --shape {name}={example}"
        )
    return tuple(size for size in found if size is not None)


def write(shape: Any) -> str:
    """`1x3x224x224`; a scalar is `scalar`."""
    return "x".join(map(str, shape)) or "scalar"


def _set_shape(value: Proto, shape: Shape) -> None:
    dims = value.type.tensor_type.shape
    dims.Clear()
    dims.SetInParent()
    for size in shape:
        dims.dim.add().dim_value = size
