"""Import a graph some of whose sizes are known only as it is called."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from hybridc.compiler import dims
from hybridc.compiler.dims import Shape
from hybridc.compiler.errors import ModelError
from hybridc.compiler.frontends.onnx_graph import empty_pasts, open_axes
from hybridc.compiler.frontends.onnx_graph.model_file import OnnxFile
from hybridc.compiler.frontends.onnx_import.folding import StaticGraph
from hybridc.compiler.frontends.onnx_import.graph import import_graph
from hybridc.compiler.interfaces import IRModule

if TYPE_CHECKING:
    from hybridc.compiler.frontends.onnx_import.sizes import Sizes


def imported_open(
    static: StaticGraph, file: OnnxFile, bound: Mapping[str, Shape]
) -> "tuple[Mapping[str, Shape], Sizes, IRModule]":
    """Import; a size that turns out to be the sum of others is that from the start.

    Earlier tokens may be none, unless the model can be imported only with some.
    """
    empty = bound
    for graph in (file.proto.graph, static.proto.graph):  # as written, and without its branches
        empty = empty_pasts.with_empty_pasts(empty, graph)
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


def limited(shape: Shape, known: Mapping[str, dims.Dim]) -> Shape:
    """The shape with the bounds that the model itself puts on its sizes."""
    return tuple(
        known[size.name] if isinstance(size, dims.Dim) and not size.parts else size
        for size in shape
    )


def bounded(module: IRModule) -> IRModule:
    """The module with constants for what has no elements, and every index within its axis."""
    from hybridc.compiler.frontends import empty_tensors
    from hybridc.compiler.frontends.bounded_indices import bound

    return bound(empty_tensors.known(module))
