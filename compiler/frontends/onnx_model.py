"""ONNX models: read, bind shapes, make static, expand, import into Relax."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from hybridc.compiler import dims
from hybridc.compiler.dims import Shape
from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph import (
    ceil_pooling,
    empty_pasts,
    functions,
    open_axes,
    quantized,
    same_padding,
    spans,
    split_sequences,
    sub_byte,
    training,
)
from hybridc.compiler.frontends.onnx_graph.model_file import OnnxFile, Proto, read
from hybridc.compiler.frontends.onnx_graph.origin import is_of_torch
from hybridc.compiler.frontends.onnx_graph.writer import opset_of
from hybridc.compiler.frontends.onnx_import import addressable, operators
from hybridc.compiler.frontends.onnx_import.folding import StaticGraph, fold
from hybridc.compiler.frontends.onnx_import.graph import import_graph
from hybridc.compiler.frontends.onnx_import.regions import Imported, import_with_regions
from hybridc.compiler.frontends.onnx_reference import OnnxReference
from hybridc.compiler.frontends.relax_outputs import output_specs, with_bounds
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.model import Model, OpaqueSpec, Region, TensorSpec, summary
from hybridc.compiler.runtime import carriers

if TYPE_CHECKING:
    from hybridc.compiler.frontends.onnx_import.sizes import Sizes


def load(source: Path | Proto, shapes: Mapping[str, Shape], fallback: bool = False) -> Model:
    """Read an ONNX file or proto; `shapes` says of open axes what is known (`open_axes.bind`).

    With `fallback`, what cannot be imported becomes regions that ONNX Runtime computes; these have
    fixed sizes, so that a model with open ones has none.  Raises ModelError, which says in one line
    what the model holds that is not usable.
    """
    file = read(source)
    bound = open_axes.bind(file, shapes, fallback)
    if any(map(dims.is_open, bound.values())):
        return _open_model(source, file, bound)
    inputs = {} if fallback else {v.name: _input_spec(v, bound[v.name]) for v in file.inputs()}
    static = prepare(file, bound)
    file = _carried(file)
    addressable.require(static)
    if fallback:
        found = import_with_regions(static, file, _numbers(bound))
    else:
        operators.require_supported(static.proto)
        module, _ = import_graph(static.proto, file.weights, bound)
        found = Imported(module, (), inputs)
    module = _bounded(found.module)
    made = output_specs(module, [value.name for value in file.proto.graph.output])
    outputs = _outputs(file, [_unless_opaque(spec, found.specs) for spec in made])
    return Model(
        name=file.name,
        module=module,
        inputs=_drawable(file, static, [found.specs[value.name] for value in file.inputs()]),
        outputs=outputs,
        reference=OnnxReference(source),
        notes=(*_notes(file, static, found.regions), *_misdeclared(file, outputs)),
        regions=found.regions,
    )


def _open_model(source: Path | Proto, file: OnnxFile, bound: Mapping[str, Shape]) -> Model:
    """A model some of whose sizes are known only as it is called."""
    names = ", ".join(dims.named(bound.values()))
    opaque = [value.name for value in file.inputs() if value.name not in bound]
    if opaque:
        raise ModelError(
            f"input {opaque[0]!r} is no tensor of numbers; ONNX Runtime can take it, but not with "
            f"open sizes ({names}): fix them with --shape"
        )
    static = prepare(file, bound)
    file = _carried(file)
    try:
        operators.require_supported(static.proto)
    except ModelError as error:
        raise ModelError(
            f"{error}; ONNX Runtime can take it, but not with open sizes ({names}): "
            "fix them with --shape"
        ) from None
    bound, sizes, module = _imported_open(static, file, bound)
    module = with_bounds(_bounded(module), sizes.dims)
    found = [_input_spec(value, _limited(bound[value.name], sizes.dims)) for value in file.inputs()]
    listed = ", ".join(dim.describe() for dim in sizes.dims.values())
    told = [dim for shape in bound.values() for dim in shape if isinstance(dim, dims.Dim)]
    sums = {f"{dim} is {dim.sum_of_parts()}" for dim in told if dim.parts and "+" not in dim.name}
    made = output_specs(module, [v.name for v in file.proto.graph.output], sizes.dims)
    outputs = _outputs(file, made)
    return Model(
        name=file.name,
        module=module,
        inputs=spans.with_marks(
            spans.with_spans(found, static.proto.graph, static.shape), file.proto.graph
        ),
        outputs=outputs,
        reference=OnnxReference(source),
        notes=(
            *_notes(file, static, ()),
            f"sizes that stay open: {listed}",
            *sorted(sums),
            *sizes.notes,
            *_misdeclared(file, outputs),
        ),
    )


def _imported_open(
    static: StaticGraph, file: OnnxFile, bound: Mapping[str, Shape]
) -> "tuple[Mapping[str, Shape], Sizes, IRModule]":
    """Import; a size that turns out to be the sum of others is that from the start.

    Earlier tokens may be none, unless the model can be imported only with some.
    """
    empty = empty_pasts.with_empty_pasts(bound, file.proto.graph)
    try:
        return _imported_at(static, file, empty)
    except ModelError:
        if empty == bound:
            raise
        return _imported_at(static, file, bound)


def _imported_at(
    static: StaticGraph, file: OnnxFile, bound: Mapping[str, Shape]
) -> "tuple[Mapping[str, Shape], Sizes, IRModule]":
    """Import with sizes of these bounds."""
    from hybridc.compiler.frontends.onnx_import.size_sums import SumError
    from hybridc.compiler.frontends.onnx_import.sizes import Sizes

    while True:
        sizes = Sizes()
        try:
            module, _ = import_graph(static.proto, file.weights, bound, sizes=sizes)
        except ModelError as error:
            if not isinstance(found := error.__cause__, SumError):
                raise
            bound = open_axes.summed(bound, found.name, found.parts, found.plus)
        else:
            return bound, sizes, module


def _limited(shape: Shape, known: Mapping[str, dims.Dim]) -> Shape:
    """The shape with the bounds that the model itself puts on its sizes."""
    return tuple(
        known[size.name] if isinstance(size, dims.Dim) and not size.parts else size
        for size in shape
    )


def _numbers(bound: Mapping[str, Shape]) -> dict[str, tuple[int, ...]]:
    return {name: dims.fixed(shape, {}) for name, shape in bound.items()}


def _unless_opaque(spec: TensorSpec, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    known = specs.get(spec.name)
    return known if isinstance(known, OpaqueSpec) else spec


def _carried(file: OnnxFile) -> OnnxFile:
    """The file with the weights as compiled code holds them."""
    weights = {name: carriers.carried(array) for name, array in file.weights.items()}
    return replace(file, weights=weights)


def _drawable(
    file: OnnxFile, static: StaticGraph, specs: Sequence[TensorSpec]
) -> tuple[TensorSpec, ...]:
    """Specs of inputs as they are declared, with the integers that make sense to the model."""
    found = spans.with_spans(_declared(file, specs), static.proto.graph, static.shape)
    return spans.with_marks(found, file.proto.graph)


def _declared(file: OnnxFile, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Specs with the types that the file declares, where others carry them."""
    known = sub_byte.declared(file.proto)
    return tuple(
        replace(spec, dtype=known[spec.name])
        if spec.name in known and not isinstance(spec, OpaqueSpec)
        else spec
        for spec in specs
    )


def _outputs(file: OnnxFile, specs: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """Specs of outputs.  Raises ModelError where one is of another type than the file declares."""
    made = _declared(file, specs)
    for value, spec in zip(file.proto.graph.output, made, strict=True):
        if isinstance(spec, OpaqueSpec) or not value.type.tensor_type.elem_type:
            continue
        if (wanted := dtype_of(value)) != spec.dtype:
            raise ModelError(f"output {spec.name!r} is declared {wanted}, and is {spec.dtype}")
    return made


def _misdeclared(file: OnnxFile, specs: Sequence[TensorSpec]) -> Iterator[str]:
    """Notes of outputs whose shape is not the one that the file declares.

    ONNX Runtime computes such a model too, and warns; exporters that copy a graph leave them.
    """
    for value, spec in zip(file.proto.graph.output, specs, strict=True):
        kind = value.type.tensor_type
        if isinstance(spec, OpaqueSpec) or not kind.HasField("shape"):
            continue
        wanted = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
        pairs = zip(wanted, spec.shape, strict=False)
        if len(wanted) != len(spec.shape) or any(
            isinstance(size, int) and told not in (None, size) for told, size in pairs
        ):
            told = ",".join("?" if size is None else str(size) for size in wanted)
            yield f"warning: output {spec.name!r} is declared [{told}], and is {spec.describe()}"


def prepare(file: OnnxFile, bound: Mapping[str, Shape]) -> StaticGraph:
    """Make a graph static and expand the operators that ONNX defines by others.

    Elements of less than a byte are those of their carriers, and padding is in numbers where it is
    known.  Operators that cannot be imported may remain.
    """
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(file.proto)
    open_axes.apply(proto, bound)
    functions.leave_out_shadowed(proto)
    ceil_pooling.write_out(proto)
    split_sequences.write_out(proto.graph)
    _say_one_sided(proto)
    proto, strict = training.written_out(proto), not is_of_torch(proto)
    written = quantized.written_out(proto)
    if written is not proto:  # what ONNX refuses is told of the operator that the file has
        fold(proto, strict=strict)
    # What torch exported need not run in ONNX Runtime.
    first = fold(written, strict=strict, weights=file.weights).proto
    proto = operators.expand_all(first, lambda made: fold(made, weights=file.weights).proto)
    static = fold(proto)
    same_padding.write_out(static.proto.graph.node, static.types)
    carried = sub_byte.carried(static.proto, static.types)
    return static if carried is static.proto else fold(carried)


def _say_one_sided(proto: Proto) -> None:
    """Write out STFT's default, which ONNX's shape inference takes for the other way."""
    import onnx

    for node in operators.walk(proto.graph):
        if node.op_type == "STFT" and all(item.name != "onesided" for item in node.attribute):
            node.attribute.append(onnx.helper.make_attribute("onesided", 1))


def _bounded(module: IRModule) -> IRModule:
    from hybridc.compiler.frontends import empty_tensors
    from hybridc.compiler.frontends.bounded_indices import bound

    return bound(empty_tensors.known(module))


def _input_spec(value: Proto, shape: Shape) -> TensorSpec:
    return TensorSpec(value.name, shape, dtype_of(value))


def dtype_of(value: Proto) -> str:
    """The element type of an ONNX input or output, as numpy and ml_dtypes spell it."""
    import onnx

    kind = value.type.tensor_type.elem_type
    if kind == onnx.TensorProto.STRING:
        raise ModelError(f"input {value.name!r} holds strings, which are not supported")
    try:
        return str(onnx.helper.tensor_dtype_to_np_dtype(kind))
    except KeyError:
        raise ModelError(f"tensor {value.name!r} has an unknown element type {kind}") from None


def _notes(file: OnnxFile, static: StaticGraph, regions: Sequence[Region]) -> tuple[str, ...]:
    before, after = len(file.proto.graph.node), len(static.proto.graph.node)
    notes = (
        f"imported from ONNX, opset {opset_of(file.proto)}",
        f"{before} operators in the file, {after} after its shapes were made static",
    )
    return (*notes, f"regions: {summary(regions)}") if regions else notes
