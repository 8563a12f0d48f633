"""Which integers make sense to an ONNX model: no divisor is 0, no index beyond its axis."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from hybridc.compiler.frontends.onnx_graph.misreadings import attributes
from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.model import Span, TensorSpec

# The static shape of a value by its name, or None.
Shapes = Callable[[str], Sequence[int] | None]

# By operator, the place of the operand and what it may be.  Regions may all be of the first image.
_WANTED: Mapping[str, tuple[int, Span]] = {
    "Div": (1, (1, 2)),
    "Mod": (1, (1, 2)),
    "RoiAlign": (2, (0, 0)),
}
# What takes places along an axis of its first operand as its second.
_TAKES = frozenset({"Gather", "GatherElements", "ScatterElements"})
# What passes on the numbers of its first operand, or some of them.
_MOVES = frozenset(
    {
        *("Cast", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice"),
        *("Split", "Squeeze", "Tile", "Transpose", "Unsqueeze"),
    }
)
_LARGEST = 127  # of an index, which an int8 may hold
# Attention that counts a sequence's keys, by the place of the counts, and what these come from:
# marks of keys, of which none is missing in a sequence that is whole.
_COUNTED = {"GroupQueryAttention": 5}
_PAST, _TOTAL = 3, 6  # of the same operator: earlier keys, and how many count with those of now
_SAME = frozenset({"Cast", "Identity", "Reshape", "Squeeze"})
_COUNTS = frozenset({"Add", "Cast", "Identity", "ReduceSum", "Reshape", "Squeeze", "Sub"})


def with_spans(specs: Sequence[TensorSpec], graph: Proto, shapes: Shapes) -> tuple[TensorSpec, ...]:
    """The inputs of a graph, each of integers with the span that its readers want."""
    known = _spans(graph, shapes)
    return tuple(
        replace(spec, span=known[spec.name]) if spec.name in known and "int" in spec.dtype else spec
        for spec in specs
    )


def with_marks(specs: Sequence[TensorSpec], graph: Proto) -> tuple[TensorSpec, ...]:
    """The inputs of a graph; those that mark keys which attention counts are all ones.

    The graph is that of the file, with the operators of ONNX Runtime's own.
    """
    makers = {name: node for node in graph.node for name in node.output}
    marks: set[str] = set()
    for node in graph.node:
        place = _COUNTED.get(node.op_type, len(node.input))
        name = node.input[place] if place < len(node.input) else ""
        while name in makers and makers[name].op_type in _COUNTS:
            name = makers[name].input[0]
        marks.add(name)
    full = _full_buffers(specs, graph.node, makers)
    return tuple(
        replace(spec, span=(1, 1))
        if spec.name in marks and len(spec.shape) == 2
        else replace(spec, span=full.get(spec.name, spec.span))
        for spec in specs
    )


def _full_buffers(
    specs: Sequence[TensorSpec], nodes: Sequence[Proto], makers: Mapping[str, Proto]
) -> dict[str, Span]:
    """Inputs that tell how many places of a buffer count, and of each sequence: all.

    Random numbers would contradict each other.
    """
    shapes = {spec.name: spec.shape for spec in specs}

    def origin(name: str) -> str:
        while name in makers and makers[name].op_type in _SAME:
            name = makers[name].input[0]
        return str(name)

    found: dict[str, Span] = {}
    for node in nodes:
        if node.op_type not in _COUNTED or len(node.input) <= _TOTAL:
            continue
        places = [*shapes.get(node.input[_PAST], ()), None, None, None][2]
        if isinstance(places, int) and places and origin(node.input[_TOTAL]) in shapes:
            last = origin(node.input[_COUNTED[node.op_type]])
            found |= {last: (places - 1, places - 1)} if last in shapes else {}
            found[origin(node.input[_TOTAL])] = (places, places)
    return found


def _spans(graph: Proto, shapes: Shapes) -> dict[str, Span]:
    """What the inputs may be that an operator reads as they are, or moved."""
    origins = {value.name: value.name for value in graph.input}
    found: dict[str, Span] = {}
    for node in graph.node:
        if node.op_type in _MOVES and node.input[0] in origins:
            origins |= dict.fromkeys(node.output, origins[node.input[0]])
        place, span = _wanted(node, shapes)
        if span is not None and node.input[place] in origins:
            origin = origins[node.input[place]]
            found[origin] = _both(found.get(origin, span), span)
    return found


def _wanted(node: Proto, shapes: Shapes) -> tuple[int, Span | None]:
    """The place of an operand and what it may be, None where it may be anything."""
    if node.op_type not in _TAKES:
        return _WANTED.get(node.op_type, (0, None))
    extents, axis = shapes(node.input[0]), attributes(node).get("axis", 0)
    if not extents or not -len(extents) <= axis < len(extents) or not extents[axis]:
        return 1, None
    return 1, (0, min(extents[axis] - 1, _LARGEST))


def _both(one: Span, other: Span) -> Span:
    """What two readers want; of nothing that both do, the first."""
    low, high = max(one[0], other[0]), min(one[1], other[1])
    return (low, high) if low <= high else one
