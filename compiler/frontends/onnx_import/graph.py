"""From a static ONNX graph to Relax, one node after another."""

import contextlib
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from hybridc.compiler.dims import Shape
from hybridc.compiler.errors import ModelError, UnsupportedError
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_graph.origin import is_of_torch
from hybridc.compiler.frontends.onnx_graph.writer import opset_of
from hybridc.compiler.frontends.onnx_import import operators
from hybridc.compiler.interfaces import IRModule
from hybridc.compiler.model import Array, Region

REGION = "HybridcRegion"  # the operator that stands for a region; its attribute `index` says which


class NodeError(ModelError):
    """A node cannot be imported; `node` is the ONNX node, None where it is none in particular."""

    def __init__(self, message: str, node: Proto | None = None) -> None:
        super().__init__(message)
        self.node = node


def import_graph(
    proto: Proto,
    weights: Mapping[str, Array],
    shapes: Mapping[str, Shape],
    regions: Sequence[Region] = (),
    sizes: Any = None,
) -> tuple[IRModule, Mapping[str, Any]]:
    """Convert to Relax with every weight as a constant of `main`.

    Returns the module, and the type of each value by its ONNX name.  `sizes`, if given (a
    `sizes.Sizes`), knows the open sizes afterwards.  Raises NodeError.
    """
    from tvm.error import InternalError

    from hybridc.compiler.frontends.onnx_import.sizes import Sizes
    from hybridc.compiler.ir.rewrite import constant

    sizes = Sizes() if sizes is None else sizes
    # The class and not `from_onnx`: it takes the weights as arrays, with no copy of the model made
    # for a check that was done, and after a failure it tells how far it came.
    importer = _importer(regions).of(shapes, sizes, is_of_torch(proto))
    reached: dict[str, Any] = importer._nodes
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            for name, array in weights.items():
                reached[name] = constant(array, str(array.dtype))
            module = importer.from_onnx(proto.graph, opset_of(proto))
    except Exception as error:
        with contextlib.suppress(InternalError):
            importer.bb._end_block()  # else the half-built function complains as it is dropped
        raise _failure(proto, reached, error, tuple(sizes.variables)) from error
    return module, {name: getattr(value, "ty", None) for name, value in reached.items()}


def _importer(regions: Sequence[Region]) -> Any:
    from hybridc.compiler.frontends.onnx_import.importer import Importer

    if not regions:
        return Importer

    class RegionImporter(Importer):
        """The importer that knows the regions of one model."""

        def _convert_operator(
            self, op_name: str, inputs: list[Any], attrs: dict[str, Any], opset: int
        ) -> Any:
            if op_name != REGION:
                return super()._convert_operator(op_name, inputs, attrs, opset)
            from hybridc.compiler.delegation.regions import call

            region = regions[attrs["index"]]
            return self.bb.emit(call(region.name, inputs, region.outputs))

    return RegionImporter


def _failure(
    proto: Proto, reached: Mapping[str, Any], error: Exception, open_sizes: Sequence[str]
) -> NodeError:
    """The error that names the first node which was not reached."""
    lines = str(error).strip().splitlines()
    reason = f"{type(error).__name__}: {lines[-1][:200] if lines else 'no reason given'}"
    refused = isinstance(error, UnsupportedError)
    message = f"is not supported with {error}" if refused else f"cannot be imported: {reason}"
    if open_sizes and "--shape" not in message:
        fix = " ".join(f"--shape {name}=N" for name in open_sizes)
        message = f"{message}; sizes are open: fix them with {fix}"
    for node in proto.graph.node:
        if any(name and name not in reached for name in node.output):
            where = operators.place(node)
            return NodeError(f"operator {node.op_type!r} ({where}) {message}", node)
    return NodeError(f"the graph cannot be imported: {reason}")
