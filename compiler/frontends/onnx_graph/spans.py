"""Which integers make sense to an ONNX model: no divisor is 0, no region of an image beyond."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.model import Span, TensorSpec

# By operator, the place of the operand and what it may be.  Regions may all be of the first image.
_WANTED: Mapping[str, tuple[int, Span]] = {
    "Div": (1, (1, 2)),
    "Mod": (1, (1, 2)),
    "RoiAlign": (2, (0, 0)),
}
# What passes on the numbers of its first operand, or some of them.
_MOVES = frozenset(
    {
        *("Cast", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice"),
        *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)


def with_spans(specs: Sequence[TensorSpec], graph: Proto) -> tuple[TensorSpec, ...]:
    """The inputs of a graph, each of integers with the span that its readers want."""
    known = _spans(graph)
    return tuple(
        replace(spec, span=known[spec.name]) if spec.name in known and "int" in spec.dtype else spec
        for spec in specs
    )


def _spans(graph: Proto) -> dict[str, Span]:
    """What the inputs may be that an operator reads as they are, or moved."""
    origins = {value.name: value.name for value in graph.input}
    found: dict[str, Span] = {}
    for node in graph.node:
        if node.op_type in _MOVES and node.input[0] in origins:
            origins |= dict.fromkeys(node.output, origins[node.input[0]])
        place, span = _WANTED.get(node.op_type, (0, None))
        if span is not None and node.input[place] in origins:
            found[origins[node.input[place]]] = span
    return found
