"""What a model holds, told without compiling it."""

from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from hybridc.compiler import dims, frontend
from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph import open_axes
from hybridc.compiler.frontends.onnx_graph.model_file import OnnxFile, Proto, read
from hybridc.compiler.frontends.onnx_graph.value_specs import dtype_of
from hybridc.compiler.frontends.onnx_graph.writer import opset_of
from hybridc.compiler.frontends.onnx_import import flops, operators, value_types
from hybridc.compiler.frontends.onnx_import.folding import StaticGraph, static_shape
from hybridc.compiler.frontends.onnx_import.preparation import prepare
from hybridc.compiler.model import OpaqueSpec, open_dims, summary

# Tensors of these types are indices, shapes and masks, not learnt.
_NOT_LEARNT = {"int64", "bool"}


def inspect_model(
    source: Any,
    shapes: Mapping[str, Any] = {},
    example_inputs: tuple[Any, ...] | None = None,
) -> dict[str, Any]:
    """Describe a model as JSON data; the sources are those of `frontend.load`.

    Axes without a size appear by name, and `flops` is then None with `flops_reason` saying why.
    `parameters` counts the constant tensors other than int64 and bool, and their bytes.
    `unsupported` counts, by name, the operators that cannot be compiled.  A torch model is
    described as the ONNX model that it exports to.  Raises InputError for what is no model.
    """
    if frontend.is_onnx(source):
        sizes = {name: dims.shape(shape) for name, shape in shapes.items()}
        return _describe(read(source if frontend.is_proto(source) else Path(source)), sizes)
    from hybridc.compiler.frontends import torch_model

    program = torch_model.export(
        Path(source) if isinstance(source, str) else source, example_inputs
    )
    described = _describe(read(torch_model.to_onnx(program)), {})
    return {**described, "name": program.name, "format": "torch"}


def _describe(file: OnnxFile, shapes: Mapping[str, Any]) -> dict[str, Any]:
    proto = file.proto
    static, reason = _static(file, shapes)
    operations, reason = _flops(static, reason)
    count, size = _parameters(file)
    nodes = list(operators.walk(proto.graph))
    return {
        "name": file.name,
        "format": "onnx",
        "opset": opset_of(proto),
        "inputs": [_tensor(value, static) for value in file.inputs()],
        "outputs": [_tensor(value, static) for value in proto.graph.output],
        "operators": _counted(nodes),
        "parameters": {"count": count, "bytes": size},
        "flops": operations,
        "flops_formula": flops.FORMULA,
        "flops_reason": reason,
        "unsupported": _counted(_unsupported(proto, static)),
    }


def _static(file: OnnxFile, shapes: Mapping[str, Any]) -> tuple[StaticGraph | None, str | None]:
    """The graph as it would be compiled, or the reason why its shapes are open.

    A shape that was given and is wrong is an error; one that is missing is not.
    """
    try:
        bound = open_axes.bind(file, shapes, True)
    except ModelError as error:
        if shapes:
            raise
        return None, str(error)
    opened = dims.named(bound.values())
    reason = f"open sizes: {', '.join(opened)}; operations are counted for fixed ones (--shape)"
    return prepare(file, bound), reason if opened else None


def _flops(static: StaticGraph | None, reason: str | None) -> tuple[int | None, str | None]:
    if static is None or reason is not None:
        return None, reason
    try:
        return flops.flops(static), None
    except ModelError as error:
        return None, str(error)


def _unsupported(proto: Proto, static: StaticGraph | None) -> list[Proto]:
    """Judged on the static graph where there is one: folding removes what constants decide."""
    if static is None:
        return operators.unsupported(proto)
    return operators.unsupported(static.proto)


def _counted(nodes: list[Proto]) -> dict[str, int]:
    """Operators with their counts, the most frequent first."""
    return dict(Counter(node.op_type for node in nodes).most_common())


def _parameters(file: OnnxFile) -> tuple[int, int]:
    from onnx import numpy_helper

    small = [numpy_helper.to_array(tensor) for tensor in file.proto.graph.initializer]
    learnt = [a for a in [*file.weights.values(), *small] if str(a.dtype) not in _NOT_LEARNT]
    return sum(array.size for array in learnt), sum(array.nbytes for array in learnt)


def _tensor(value: Proto, static: StaticGraph | None) -> dict[str, Any]:
    kind = static.types.get(value.name, value.type) if static is not None else value.type
    spec = value_types.spec(value.name, kind)
    if isinstance(spec, OpaqueSpec) and open_axes.is_opaque(value):
        sizes = None if spec.sizes is None else list(spec.sizes)
        return {"name": value.name, "dtype": spec.type, "shape": sizes}
    shape: Any = static_shape(static.types.get(value.name)) if static is not None else None
    if shape is None:
        shape = open_axes.axes(value)
    return {
        "name": value.name,
        "dtype": dtype_of(value),
        "shape": None if shape is None else list(shape),
    }


def analyse_model(
    source: Any,
    shapes: Mapping[str, Any] = {},
    example_inputs: tuple[Any, ...] | None = None,
    target: str = "cpu",
    log: str | None = None,
) -> dict[str, Any]:
    """Analyse a model for a target as JSON data (see `analysis.Analysis`).

    Open sizes are those to measure at, and `sizes` tells them; of what ONNX Runtime computes only
    inputs and outputs count, and `regions` tells what that is.  Where the model cannot be imported,
    `reason` says why, and nothing else is there.  Raises
    InputError for what is no model or no target, and LogError for a log that cannot be read.
    """
    from hybridc.compiler import target as devices
    from hybridc.compiler.anatomy import analysis  # TVM takes its time

    device = devices.parse(target)
    if device.gpu is not None:
        return {"reason": f"models are analysed for CPUs alone, not for {target}"}
    load = partial(frontend.load, source, example_inputs=example_inputs, fallback=True)
    try:
        model = load(shapes=shapes)
        sizes = dims.nominal(open_dims(model.inputs))
        if sizes:
            model = load(shapes={spec.name: spec.at(sizes).shape for spec in model.inputs})
    except ModelError as error:
        return {"reason": str(error)}
    found = analysis.analyse(model.module, device, log).to_json()
    handed = {"regions": summary(model.regions)} if model.regions else {}
    return {"sizes": sizes, **found, **handed} if sizes else {**found, **handed}
