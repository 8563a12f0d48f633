"""ONNX models: read, bind shapes, make static, expand, import into Relax."""

import contextlib
import io
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hybridc.compiler.errors import ModelError, NodeError, UnsupportedError
from hybridc.compiler.frontends import onnx_operators, onnx_quantized, onnx_shapes
from hybridc.compiler.frontends.onnx_file import OnnxFile, Proto, read
from hybridc.compiler.frontends.onnx_folding import StaticGraph, fold
from hybridc.compiler.frontends.relax_outputs import output_specs
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.model import Model, TensorSpec
from hybridc.compiler.reference import onnx_reference

# Kernels index with 32 bits.
_MOST_ELEMENTS = 2**31 - 1


def load(source: Path | Proto, shapes: Mapping[str, tuple[int, ...]]) -> Model:
    """Read an ONNX file or proto; `shapes` gives the sizes of dynamic axes by input name.

    Raises ModelError, which says in one line what the model holds that is not usable.
    """
    file = read(source)
    bound = onnx_shapes.bind(file, shapes)
    inputs = tuple(_input_spec(value, bound[value.name]) for value in file.inputs())
    static = prepare(file, bound)
    onnx_operators.require_supported(static.proto)
    _require_addressable(static)
    module = _bounded(_import(static.proto, file, bound))
    return Model(
        name=file.name,
        module=module,
        inputs=inputs,
        outputs=output_specs(module, [value.name for value in file.proto.graph.output]),
        reference=onnx_reference(source),
        notes=_notes(file, static),
    )


def prepare(file: OnnxFile, bound: Mapping[str, tuple[int, ...]]) -> StaticGraph:
    """Make a graph static and expand the operators that ONNX defines by others.

    Operators that cannot be imported may remain.
    """
    import onnx

    proto = onnx.ModelProto()
    proto.CopyFrom(file.proto)
    onnx_shapes.apply(proto, bound)
    proto = onnx_quantized.written_out(proto)
    proto = onnx_operators.expand_all(fold(proto).proto, lambda made: fold(made).proto)
    return fold(proto)


def _require_addressable(static: StaticGraph) -> None:
    for name in static.types:
        size = math.prod(static.shape(name) or ())
        if size > _MOST_ELEMENTS:
            raise ModelError(f"tensor {name!r} has {size} elements; the most is {_MOST_ELEMENTS}")


def _import(proto: Proto, file: OnnxFile, bound: Mapping[str, tuple[int, ...]]) -> IRModule:
    """Convert to Relax with every weight as a constant of `main`."""
    from tvm import relax
    from tvm.error import InternalError

    from hybridc.compiler.frontends.onnx_importer import Importer

    # The class and not `from_onnx`: it takes the weights as arrays, with no copy of the model made
    # for a check that was done, and after a failure it tells how far it came.
    importer = Importer({name: list(shape) for name, shape in bound.items()}, "float32")
    reached = importer._nodes  # pyright: ignore[reportPrivateUsage]
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for name, array in file.weights.items():
                reached[name] = relax.const(array)
            return importer.from_onnx(proto.graph, onnx_operators.opset_of(proto))
    except Exception as error:
        with contextlib.suppress(InternalError):
            importer.bb._end_block()  # else the half-built function complains as it is dropped
        raise _failure(proto, reached, error) from error


def _bounded(module: IRModule) -> IRModule:
    from hybridc.compiler.frontends.bounded_indices import bound

    return bound(module)


def _failure(proto: Proto, reached: Mapping[str, Any], error: Exception) -> ModelError:
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[-1][:200] if lines else 'no reason given'}"
    refused = isinstance(error, UnsupportedError)
    told = f"is not supported with {error}" if refused else f"cannot be imported: {reason}"
    for node in proto.graph.node:
        if any(name and name not in reached for name in node.output):
            where = onnx_operators.place(node)
            return NodeError(f"operator {node.op_type!r} ({where}) {told}", node.output[0])
    return ModelError(f"the graph cannot be imported: {reason}")


def _input_spec(value: Proto, shape: tuple[int, ...]) -> TensorSpec:
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
        raise ModelError(f"input {value.name!r} has an unknown element type {kind}") from None


def _notes(file: OnnxFile, static: StaticGraph) -> tuple[str, ...]:
    before, after = len(file.proto.graph.node), len(static.proto.graph.node)
    return (
        f"imported from ONNX, opset {onnx_operators.opset_of(file.proto)}",
        f"{before} operators in the file, {after} after its shapes were made static",
    )
