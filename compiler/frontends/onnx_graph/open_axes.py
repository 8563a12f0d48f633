"""Give the open axes of an ONNX model their sizes, or what bounds them."""

from collections.abc import Mapping
from dataclasses import replace

from hybridc.compiler import dims as sizes_of
from hybridc.compiler.dims import UNNAMED, Dim, Shape, Size, write
from hybridc.compiler.errors import InputError, ModelError, hint
from hybridc.compiler.frontends.onnx_graph.model_file import OnnxFile, Proto

Axes = tuple[int | str, ...]  # a size, or an axis' name; "?" where it has none


def axes(value: Proto) -> Axes | None:
    """Sizes and names of a graph input's axes; None where even their number is not known.

    Some exporters write -1 for a size that is open.  Raises ModelError for an input that is no
    tensor, and for other negative sizes.
    """
    kind = value.type.WhichOneof("value")
    if kind != "tensor_type":
        raise ModelError(f"input {value.name!r} is a {kind or 'value of no type'}, not a tensor")
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim]
    if wrong := [size for size in sizes if size is not None and size < -1]:
        raise ModelError(f"input {value.name!r} has a negative size, {wrong[0]}")
    return tuple(
        (dim.dim_param or UNNAMED) if size in (None, -1) else size
        for dim, size in zip(tensor.shape.dim, sizes, strict=True)
    )


def bind(file: OnnxFile, shapes: Mapping[str, Shape], opaque: bool = False) -> dict[str, Shape]:
    """Find a shape for each input, from the model and from `shapes`.

    These are by input name, or by the name of an axis, which has one size wherever it stands.  An
    axis that nobody sizes stays open.  With `opaque`, inputs that are no tensors of numbers need no
    shape, and are left out.  Raises ModelError for a name that the model lacks, and for a shape
    that contradicts the model or another one.
    """
    values = [v for v in file.inputs() if v.name in shapes or not (opaque and is_opaque(v))]
    declared = {value.name: axes(value) for value in values}
    sizes = _axis_sizes(shapes, declared)
    by_input = {name: shape for name, shape in shapes.items() if name in declared}
    try:
        for name, shape in by_input.items():
            _match(name, declared[name], shape, sizes)
        pairs = ((name, dims, by_input.get(name)) for name, dims in declared.items())
        found = {name: _resolve(name, dims, s, sizes) for name, dims, s in pairs}
        _require_parts(shapes, [*sizes, *sizes_of.named(found.values())])
        return _settled(sizes_of.united(found), sizes)
    except ModelError:
        raise
    except InputError as error:
        raise ModelError(f"--shape: {error}") from None


def _require_parts(given: Mapping[str, Shape], known: list[str]) -> None:
    """Raise ModelError where a sum that was given has a part that is no size."""
    sums = (s for shape in given.values() for s in shape if isinstance(s, Dim) and s.parts)
    for size in sums:
        for part in size.parts:
            if part not in known:
                raise ModelError(f"--shape: {size} has no size {part!r}; {hint(part, known)}")


def summed(
    shapes: Mapping[str, Shape], name: str, parts: tuple[str, ...], plus: int
) -> dict[str, Shape]:
    """Shapes in which one open size is the sum of others, and of a number."""

    def size_of(size: Size) -> Size:
        if isinstance(size, Dim) and size.name == name:
            return replace(size, parts=parts, plus=plus)
        return size

    return {each: tuple(map(size_of, shape)) for each, shape in shapes.items()}


def _settled(shapes: Mapping[str, Shape], sizes: Mapping[str, Size]) -> dict[str, Shape]:
    """Shapes whose sums are of open sizes of inputs: of fixed ones a number, of others none."""
    known = sizes_of.named(shapes.values())

    def settled(size: Size) -> Size:
        if not isinstance(size, Dim) or not size.parts:
            return size
        fixed = [n for part in size.parts if isinstance(n := sizes.get(part), int)]
        parts = tuple(part for part in size.parts if not isinstance(sizes.get(part), int))
        if any(part not in known for part in parts):
            return Dim(size.name)
        plus = size.plus + sum(fixed)
        return replace(size, parts=parts, plus=plus) if parts else plus

    return {name: tuple(map(settled, shape)) for name, shape in shapes.items()}


def _axis_sizes(
    shapes: Mapping[str, Shape], declared: Mapping[str, Axes | None]
) -> dict[str, Size]:
    """What `shapes` says of axes by their own names."""
    names = {dim for dims in declared.values() for dim in dims or () if isinstance(dim, str)}
    found: dict[str, Size] = {}
    for name, shape in shapes.items():
        if name in declared:
            continue
        if name not in names - {UNNAMED}:
            known = [*declared, *(names - {UNNAMED})]
            raise ModelError(f"--shape {name}: no input or axis has this name; {hint(name, known)}")
        if len(shape) != 1:
            raise ModelError(f"--shape {name}={write(shape)}: an axis has one size")
        found[name] = _called(shape[0], name)
    return found


def _called(size: Size, name: str) -> Size:
    """The size, named where the user left that to the model."""
    return replace(size, name=name) if isinstance(size, Dim) and size.name == UNNAMED else size


def is_opaque(value: Proto) -> bool:
    """Whether an input is no tensor of numbers."""
    import onnx

    tensor = value.type.WhichOneof("value") == "tensor_type"
    return not tensor or value.type.tensor_type.elem_type == onnx.TensorProto.STRING


def apply(proto: Proto, shapes: Mapping[str, Shape]) -> None:
    """Write shapes into a model's inputs and drop what it says of other tensors.

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


def _match(name: str, dims: Axes | None, shape: Shape, sizes: dict[str, Size]) -> None:
    written = f"--shape {name}={write(shape)}"
    if dims is None:
        return
    if len(dims) != len(shape):
        raise ModelError(f"{written}: input {name!r} has {len(dims)} axes: {write_axes(dims)}")
    for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
        if isinstance(dim, int):
            if isinstance(size, Dim):
                raise ModelError(f"{written}: axis {axis} of input {name!r} is {dim}, not open")
            if dim != size:
                raise ModelError(f"{written}: axis {axis} of input {name!r} is {dim}, not {size}")
        elif dim != UNNAMED:
            _agree(f"{written}: axis {axis} ({dim!r}) of input {name!r}", dim, size, sizes)


def _agree(where: str, dim: str, size: Size, sizes: dict[str, Size]) -> None:
    """Note the size of an axis that the model names; all axes of that name have one."""
    size = _called(size, dim)
    known = sizes.setdefault(dim, size)
    if isinstance(known, Dim) and isinstance(size, Dim) and known.name == size.name:
        sizes[dim] = sizes_of.agreed(known, size)
        return
    if known == size:
        return
    raise ModelError(f"{where} is {write([known])}, not {write([size])}")


def _resolve(name: str, dims: Axes | None, shape: Shape | None, sizes: Mapping[str, Size]) -> Shape:
    """The shape of an input; an open axis without a name is called by the input and its number."""
    if dims is None and shape is None:
        raise ModelError(f"the shape of input {name!r} is not known; give --shape {name}=1x…")
    found: list[Size] = []
    for axis, known in enumerate(dims if dims is not None else [UNNAMED] * len(shape or ())):
        if isinstance(known, int):
            found.append(known)
        elif known != UNNAMED:
            found.append(sizes.get(known, sizes_of.sum_of(known) or Dim(known)))
        else:
            size = Dim(UNNAMED) if shape is None else shape[axis]
            found.append(_called(size, f"{name}_{axis}"))
    return tuple(found)


def write_axes(dims: Axes) -> str:
    """`1x3x?xwidth`."""
    return "x".join(map(str, dims)) or "scalar"


def _set_shape(value: Proto, shape: Shape) -> None:
    dims = value.type.tensor_type.shape
    dims.Clear()
    dims.SetInParent()
    for size in shape:
        if isinstance(size, Dim):
            dims.dim.add().dim_param = size.name
        else:
            dims.dim.add().dim_value = size
