"""PyTorch models, by way of ONNX or of TVM's own importer for exported programs."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridc.compiler.dims import is_open
from hybridc.compiler.errors import HybridcError, InputError, ModelError
from hybridc.compiler.frontends import onnx_model
from hybridc.compiler.frontends.onnx_import import operators
from hybridc.compiler.frontends.relax_outputs import output_specs
from hybridc.compiler.frontends.torch_import import (
    archive,
    flex_attention,
    misread,
    open_sizes,
    reasons,
    repairs,
    whereabouts,
)
from hybridc.compiler.frontends.torch_import.quiet import quiet
from hybridc.compiler.frontends.torch_import.values import (
    examples,
    of_pairs,
    packed_kind,
    spec_of,
    values_of,
    written,
)
from hybridc.compiler.frontends.torch_reference import TorchReference, evaluation_mode
from hybridc.compiler.model import Model, TensorSpec

# ONNX first: it imports more architectures (the transformers whole), and fewer of its operators are
# known to be converted wrongly.  The other road has what ONNX or torch's exporter to it lacks, such
# as linear algebra, and takes a fifth of the time.
ROADS = ("ONNX", "torch.export")
# The last road, where it is allowed: what neither has is left to ONNX Runtime, as of ONNX models.
WITH_REGIONS = "ONNX with ONNX Runtime"


@dataclass(frozen=True)
class Constant:
    """An argument that is no tensor, and so became part of the program."""

    value: Any


@dataclass(frozen=True)
class Program:
    """An exported program, and how to call what it was exported from.

    `arguments` are the flattened arguments: the name of a tensor, or a constant.
    """

    name: str
    exported: Any
    original: Callable[[], Any]
    arguments: tuple[str | Constant, ...]
    outputs: tuple[str, ...]

    @property
    def inputs(self) -> list[str]:
        """Names of the arguments that are tensors, in their order."""
        return [argument for argument in self.arguments if isinstance(argument, str)]

    def run(self, tensors: dict[str, Any]) -> Any:
        """Call the original with the tensors of the inputs."""
        from torch.utils._pytree import tree_unflatten

        values = values_of(self.exported)
        leaves = [
            a.value if isinstance(a, Constant) else of_pairs(tensors[a], values[a])
            for a in self.arguments
        ]
        positional, keyword = tree_unflatten(leaves, self.exported.call_spec.in_spec)
        module = self.original()
        with evaluation_mode(module):
            return module(*positional, **keyword)


def load(
    source: Any,
    example_inputs: tuple[Any, ...] | None,
    roads: Sequence[str] = ROADS,
) -> Model:
    """Load a module with example inputs, an ExportedProgram, or the path of a `.pt2` file.

    The first of `roads` that works is taken (see `roads_of`).  Modules are exported in evaluation
    mode and left in the mode they were in.  Raises InputError where torch or the example inputs are
    missing, ModelError where no road works.
    """
    program = export(source, example_inputs)
    from hybridc.compiler.frontends.torch_import.onnx_export import once  # needs torch

    proto = once(lambda: to_onnx(program))
    converters: dict[str, Callable[[], Model]] = {
        "ONNX": lambda: _through_onnx(program, proto()),
        "torch.export": lambda: _directly(program),
        WITH_REGIONS: lambda: _through_onnx(program, proto(), fallback=True),
    }
    lost: list[tuple[str, str]] = []
    for road in roads:
        try:
            with quiet():
                model = _checked(converters[road](), program)
        except Exception as error:  # exporters and importers raise anything
            lost.append((road, reasons.reason(error)))
            continue
        failed = tuple(f"failed by way of {why}" for why in reasons.each(lost))
        notes = (*failed, f"imported from torch by way of {road}", *model.notes)
        return dataclasses.replace(
            model,
            name=program.name,
            reference=TorchReference(program.run, program.original),
            notes=notes,
            examples=examples(program.exported, program.arguments),
            road=road,
        )
    data = whereabouts.data_dependent(program.exported)
    more = reasons.of_data(data, fallback=WITH_REGIONS in roads)
    tried = "; by way of ".join(reasons.each(lost))
    raise ModelError(f"{program.name} cannot be imported; by way of {tried}{more}")


def roads_of(fallback: bool) -> tuple[str, ...]:
    """The roads in the order in which they are tried; the last may leave operators to others."""
    return (*ROADS, WITH_REGIONS) if fallback else ROADS


def _checked(model: Model, program: Program) -> Model:
    """The model, if its outputs are of the shapes and types that torch gives them.

    Importers drop axes here and there.
    """
    values = values_of(program.exported)
    for spec, output in zip(model.outputs, _tensor_outputs(program.exported), strict=True):
        value = values.get(output.arg.name)
        if value is None or not all(isinstance(size, int) for size in value.shape):
            continue
        wanted = spec_of(spec.name, value)
        if spec != wanted:
            raise ModelError(f"the output {wanted.describe()} came in as {spec.describe()}")
    return model


def _tensor_outputs(exported: Any) -> list[Any]:
    """What the program gives to the user, tensors alone."""
    from torch.export.graph_signature import OutputKind, TensorArgument

    return [
        spec
        for spec in exported.graph_signature.output_specs
        if spec.kind == OutputKind.USER_OUTPUT and isinstance(spec.arg, TensorArgument)
    ]


def export(source: Any, example_inputs: tuple[Any, ...] | None) -> Program:
    """Export a module, or take a program that was exported before.

    Raises InputError or ModelError where that is not possible.
    """
    try:
        import torch
    except ImportError:
        raise InputError("PyTorch models need torch: pip install 'hybridc[torch]'") from None
    if isinstance(source, torch.nn.Module):
        if not isinstance(example_inputs, tuple):
            raise InputError("a torch.nn.Module needs example_inputs, a tuple of its arguments")
        exported = _export(source, example_inputs)
        return _program(type(source).__name__, exported, lambda: source)
    if example_inputs is not None:
        raise InputError("example_inputs are used with a torch.nn.Module alone")
    if isinstance(source, Path):
        exported = archive.read(source)
        return _program(source.stem, exported, exported.module)
    if isinstance(source, torch.export.ExportedProgram):
        return _program("model", source, source.module)
    raise InputError(f"a {type(source).__name__} is neither a torch.nn.Module nor exported")


def _export(module: Any, example_inputs: tuple[Any, ...]) -> Any:
    import torch

    if kind := packed_kind(module):
        before = "compile the model as it was before it was quantised, with --dtype int8"
        raise ModelError(f"{kind} holds integers that torch cannot export; {before}")
    try:
        with torch.no_grad(), evaluation_mode(module), quiet():
            return flex_attention.without(_traced(module, example_inputs))
    except Exception as error:  # tracing runs the user's own code
        raise ModelError(reasons.untraced(error)) from error


def _traced(module: Any, example_inputs: tuple[Any, ...]) -> Any:
    """The module's program, if it can be of functions written otherwise; else of torch's own.

    Branches and loops of torch are traced by Dynamo, which wants no mode around it.
    """
    import torch

    from hybridc.compiler.frontends.torch_import.traceable import traceable  # needs torch

    try:
        with traceable():
            return torch.export.export(module, example_inputs)
    except HybridcError:  # a refusal of ours says more than torch's words for the same function
        raise
    except Exception:  # the other try says what is wrong
        return torch.export.export(module, example_inputs)


def _program(name: str, exported: Any, original: Callable[[], Any]) -> Program:
    from torch.export.graph_signature import InputKind

    if changed := written(exported):
        raise ModelError(
            f"{name} changes its own state or inputs, which is not supported: {changed}"
        )
    exported = repairs.tensors_alone(exported)
    signature = exported.graph_signature
    arguments = tuple(
        _argument(name, spec.arg)
        for spec in signature.input_specs
        if spec.kind == InputKind.USER_INPUT
    )
    count = len(_tensor_outputs(exported))
    outputs = ("output",) if count == 1 else tuple(f"output_{index}" for index in range(count))
    program = Program(name, exported, original, arguments, outputs)
    _input_specs(program)
    return program


def _argument(name: str, argument: Any) -> str | Constant:
    from torch.export.graph_signature import ConstantArgument, TensorArgument

    if isinstance(argument, TensorArgument):
        return str(argument.name)
    if isinstance(argument, ConstantArgument):
        return Constant(argument.value)
    raise ModelError(f"argument {argument.name!r} of {name} is neither a tensor nor constant")


def _input_specs(program: Program) -> tuple[TensorSpec, ...]:
    values = values_of(program.exported)
    ranges = program.exported.range_constraints
    return tuple(_input_spec(name, values[name], ranges) for name in program.inputs)


def _input_spec(name: str, value: Any, ranges: Mapping[Any, Any]) -> TensorSpec:
    if all(isinstance(size, int) for size in value.shape):
        return spec_of(name, value)
    return open_sizes.spec(name, value, ranges)


def to_onnx(program: Program) -> Any:
    """Export to an `onnx.ModelProto` with our names of inputs and outputs."""
    from hybridc.compiler.frontends.torch_import import onnx_export

    return onnx_export.to_onnx(program.exported, program.inputs, list(program.outputs))


def _through_onnx(program: Program, proto: Any, fallback: bool = False) -> Model:
    if operators.draws(proto):
        raise ModelError("it draws random numbers")
    wanted = _input_specs(program)
    shapes = {spec.name: spec.shape for spec in wanted if is_open(spec.shape)}
    model = onnx_model.load(proto, shapes, fallback)
    if open_sizes.forms(model.inputs) != open_sizes.forms(wanted):
        raise ModelError("the exporter changed the inputs")
    return model


def _directly(program: Program) -> Model:
    from hybridc.compiler.frontends import empty_tensors
    from hybridc.compiler.frontends.bounded_indices import bound
    from hybridc.compiler.frontends.torch_import.importer import import_program

    misread.require_readable(program.exported)
    if any(is_open(spec.shape) for spec in _input_specs(program)):
        raise ModelError("open sizes come by way of ONNX alone")
    module = import_program(program.exported)
    if len(module["main"].params) != len(program.inputs):
        raise ModelError("the importer changed the inputs")
    return Model(
        name=program.name,
        module=bound(empty_tensors.known(module)),
        inputs=_input_specs(program),
        outputs=output_specs(module, list(program.outputs)),
        reference=TorchReference(program.run, program.original),
    )
