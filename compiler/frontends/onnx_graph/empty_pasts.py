"""Open sizes that may be nothing: those of what a decoder keeps of earlier tokens.

The first call of a decoder has none.  Elsewhere a size of 0 makes no sense, and an open size is at
least 1.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace

from hybridc.compiler.dims import Dim, Shape, Size
from hybridc.compiler.frontends.onnx_graph.misreadings import attributes
from hybridc.compiler.frontends.onnx_graph.model_file import Proto

# By operator, the places of earlier keys and values, whose tokens lie along one axis.
_ATTENTION: Mapping[str, tuple[int, int]] = {
    "Attention": (4, 5),
    "GroupQueryAttention": (3, 4),
    "MultiHeadAttention": (6, 7),
}
_TOKENS, _RANK = 2, 4
_SAME = frozenset({"Cast", "Identity"})


def with_empty_pasts(shapes: Mapping[str, Shape], graph: Proto) -> dict[str, Shape]:
    """Shapes in which sizes of earlier tokens may be 0, where nobody bounded them."""
    names = {size.name for size in _pasts(shapes, graph) if not size.parts and not size.bounded}

    def size_of(size: Size) -> Size:
        return replace(size, low=0) if isinstance(size, Dim) and size.name in names else size

    return {each: tuple(map(size_of, shape)) for each, shape in shapes.items()}


def _pasts(shapes: Mapping[str, Shape], graph: Proto) -> Iterator[Dim]:
    """Open axes of inputs, along which attention or a Concat puts others behind.

    Those of the form of keys and values, `[batch, heads, tokens, width]`.
    """
    origins = {name: name for name in shapes}
    for node in graph.node:
        if node.op_type in _SAME and node.input[0] in origins:
            origins[node.output[0]] = origins[node.input[0]]
        for name, axis in _first_operands(node):
            shape = shapes.get(origins.get(name, ""), ())
            if len(shape) == _RANK and axis in (_TOKENS, _TOKENS - _RANK):
                size = shape[_TOKENS]
                if isinstance(size, Dim):
                    yield size


def _first_operands(node: Proto) -> Iterator[tuple[str, int]]:
    """What other tokens come behind, with the axis."""
    if node.op_type == "Concat" and len(node.input) > 1:
        yield node.input[0], int(attributes(node)["axis"])
    for place in _ATTENTION.get(node.op_type, ()):
        if place < len(node.input):
            yield node.input[place], _TOKENS
