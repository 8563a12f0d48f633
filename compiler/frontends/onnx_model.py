"""ONNX models: read, bind shapes, make static, expand, import into Relax."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hybridc.compiler import dims
from hybridc.compiler.dims import Shape
from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph import open_axes, spans, sub_byte, switches
from hybridc.compiler.frontends.onnx_graph.model_file import OnnxFile, Proto, read
from hybridc.compiler.frontends.onnx_graph.value_specs import dtype_of, input_spec
from hybridc.compiler.frontends.onnx_graph.writer import opset_of
from hybridc.compiler.frontends.onnx_import import addressable, operators
from hybridc.compiler.frontends.onnx_import.folding import StaticGraph
from hybridc.compiler.frontends.onnx_import.graph import import_graph
from hybridc.compiler.frontends.onnx_import.open_import import bounded, imported_open, limited
from hybridc.compiler.frontends.onnx_import.preparation import carried, prepare
from hybridc.compiler.frontends.onnx_import.regions import Imported, import_with_regions
from hybridc.compiler.frontends.onnx_reference import OnnxReference
from hybridc.compiler.frontends.relax_outputs import output_specs, with_bounds
from hybridc.compiler.model import Model, OpaqueSpec, Region, TensorSpec, summary


def load(source: Path | Proto, shapes: Mapping[str, Shape], fallback: bool = False) -> Model:
    """Read an ONNX file or proto; `shapes` says of open axes what is known (`open_axes.bind`).

    With `fallback`, what cannot be imported becomes regions that ONNX Runtime computes; these have
    fixed sizes, so that a model with open ones has none.  Raises ModelError, which says in one line
    what the model holds that is not usable.
    """
    file = read(source)
    bound = open_axes.bind(file, shapes, fallback)
    static = prepare(file, bound)
    if (switch := switches.switch_of(static.proto.graph, bound)) is not None:
        with suppress(*([ModelError] if fallback and not _is_open(bound) else [])):
            return _switched_model(source, file, shapes, switch)
    if _is_open(bound):
        return _open_model(source, file, static, bound)
    inputs = {} if fallback else {v.name: input_spec(v, bound[v.name]) for v in file.inputs()}
    file = carried(file)
    addressable.require(static)
    if fallback:
        found = import_with_regions(static, file, _numbers(bound))
    else:
        operators.require_supported(static.proto)
        module, _ = import_graph(static.proto, file.weights, bound)
        found = Imported(module, (), inputs)
    module = bounded(found.module)
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


def _is_open(bound: Mapping[str, Shape]) -> bool:
    return any(map(dims.is_open, bound.values()))


def _switched_model(
    source: Path | Proto, file: OnnxFile, shapes: Mapping[str, Shape], switch: str
) -> Model:
    """A model in which an input chooses between graphs; each is imported by itself."""
    from hybridc.compiler.frontends.onnx_import import switched  # TVM takes its time

    bound = open_axes.bind(file, shapes)
    specs = [input_spec(value, bound[value.name]) for value in file.inputs()]
    branches = {
        value: switched.branch(file, bound, shapes, switch, value) for value in (True, False)
    }
    every = list(branches.values())
    inputs = switched.inputs_of(specs, every, switch)
    names = [value.name for value in file.proto.graph.output]
    told = [f"where {switch} is {str(on).lower()}: {each.told()}" for on, each in branches.items()]
    return Model(
        name=file.name,
        module=switched.joined(branches, inputs, switch),
        inputs=inputs,
        outputs=_outputs(file, switched.outputs_of(every, names, inputs)),
        reference=OnnxReference(source),
        notes=(f"imported from ONNX, opset {opset_of(file.proto)}", *told),
        ways=switched.ways(branches, inputs, switch),
    )


def _open_model(
    source: Path | Proto, file: OnnxFile, static: StaticGraph, bound: Mapping[str, Shape]
) -> Model:
    """A model some of whose sizes are known only as it is called."""
    names = ", ".join(dims.named(bound.values()))
    opaque = [value.name for value in file.inputs() if value.name not in bound]
    if opaque:
        raise ModelError(
            f"input {opaque[0]!r} is no tensor of numbers; ONNX Runtime can take it, but not with "
            f"open sizes ({names}): fix them with --shape"
        )
    file = carried(file)
    try:
        operators.require_supported(static.proto)
    except ModelError as error:
        raise ModelError(
            f"{error}; ONNX Runtime can take it, but not with open sizes ({names}): "
            "fix them with --shape"
        ) from None
    bound, sizes, module = imported_open(static, file, bound)
    module = with_bounds(bounded(module), sizes.dims)
    found = [input_spec(value, limited(bound[value.name], sizes.dims)) for value in file.inputs()]
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


def _numbers(bound: Mapping[str, Shape]) -> dict[str, tuple[int, ...]]:
    return {name: dims.fixed(shape, {}) for name, shape in bound.items()}


def _unless_opaque(spec: TensorSpec, specs: Mapping[str, TensorSpec]) -> TensorSpec:
    known = specs.get(spec.name)
    return known if isinstance(known, OpaqueSpec) else spec


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


def _notes(file: OnnxFile, static: StaticGraph, regions: Sequence[Region]) -> tuple[str, ...]:
    before, after = len(file.proto.graph.node), len(static.proto.graph.node)
    notes = (
        f"imported from ONNX, opset {opset_of(file.proto)}",
        f"{before} operators in the file, {after} after its shapes were made static",
    )
    return (*notes, f"regions: {summary(regions)}") if regions else notes
