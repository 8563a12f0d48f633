"""Loops that reduce a run of rows each turn, as exporters write bags of embeddings.

Where a run begins and ends depends on the data, so that the loop cannot be written out; but it is
one operator of ours, `OPERATOR`, whose turns need no graph.  Found are two forms: a loop that puts
a row out each turn, and one that makes a sequence longer by a row and counts its turns itself.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx_graph.branches import Branch, Scene, as_constant, as_node
from hybridc.compiler.frontends.onnx_graph.loop_body import Body, label, turns_of
from hybridc.compiler.frontends.onnx_graph.model_file import Proto

# Operands: rows, and where each run begins and ends, as a slice takes these.
OPERATOR = "HybridcReduceRuns"
_MODES = {"ReduceSum": "sum", "ReduceMean": "mean", "ReduceMax": "max"}
_FLOAT, _DOUBLE = 1, 11


@dataclass(frozen=True)
class _Found:
    """What a turn computes: the rows before they are sliced, and by which values they are.

    `blank`: zeros where a run ends where it begins.  `last`: what is done otherwise in the last
    turn: "" nothing, "whole" the run goes to the end, "mean" the divisor does.
    """

    mode: str
    rows: str
    span: tuple[str, str]
    length: int
    kept: bool
    blank: bool = False
    last: str = ""


def written_out(node: Proto, scene: Scene) -> Branch | None:
    """What stands in the place of such a loop, or of the sequence that it makes; else None."""
    if node.domain not in ("", "ai.onnx"):
        return None
    if node.op_type == "ConcatFromSequence":
        return _joined(node, scene)
    if node.op_type != "Loop" or (turns := turns_of(node, scene)) is None:
        return None
    branch, body = Branch(), Body(node, scene, turns.turn)
    if turns.scanned:
        found = _reduction(body, branch, turns.row)
        return _made(node.output[0], found, turns.count, body, branch)
    found = _row(body, branch, turns.row, turns.count)
    rows = f"{label(node)}/rows"
    if found is None or not found.kept or _made(rows, found, turns.count, body, branch) is None:
        return None
    as_node(branch, "SplitToSequence", [rows], node.output[turns.sequence], axis=0)
    as_constant(branch, node.output[1 - turns.sequence], np.array(turns.count, np.int64))
    return branch


def kind(node: Proto, types: Any) -> Proto:
    """The type of what the operator computes."""
    import onnx

    rows, starts = (types[name].tensor_type for name in node.input[:2])
    extents = [starts.shape.dim[0].dim_value, rows.shape.dim[1].dim_value]
    return onnx.helper.make_tensor_type_proto(rows.elem_type, extents)


def _joined(node: Proto, scene: Scene) -> Branch | None:
    """A tensor that was split into a sequence along the axis along which that is joined."""
    made = scene.makers.get(node.input[0])
    options = {item.name: item.i for item in node.attribute}
    if made is None or made.op_type != "SplitToSequence" or len(made.input) > 1:
        return None
    split = {item.name: item.i for item in made.attribute}
    if options["axis"] != split.get("axis", 0) or options.get("new_axis", 0):
        return None
    if not split.get("keepdims", 1):
        return None
    branch = Branch()
    as_node(branch, "Identity", [made.input[0]], node.output[0])
    return branch


def _made(name: str, found: _Found | None, count: int, body: Body, branch: Branch) -> Branch | None:
    """Name the runs of all turns, and what they reduce to."""
    if found is None or count < 1:
        return None
    ends: list[str] = []
    for end in found.span:
        source, place = body.element(end) or ("", 0)
        shape = body.scene.shape(source) if source else None
        if shape is None or len(shape) != 1 or place < 0 or place + count > shape[0]:
            return None
        side = f"{name}/side{len(ends)}"
        bounds = [
            as_constant(branch, f"{side}/{number}", np.array([number], np.int64))
            for number in (place, place + count)
        ]
        zero = as_constant(branch, f"{side}/axis", np.array([0], np.int64))
        as_node(branch, "Slice", [source, *bounds, zero], side)
        ends.append(side)
    options = {"mode": found.mode, "blank": int(found.blank), "last": found.last}
    as_node(branch, OPERATOR, [found.rows, *ends], name, **options)
    return branch


def _row(body: Body, branch: Branch, name: str, count: int) -> _Found | None:
    """A turn of the second form: zeros for an empty run, and perhaps a last turn of its own."""
    choice = body.maker(name, "If")
    same = body.maker(choice.input[0], "Equal") if choice is not None else None
    if choice is None or same is None:
        return None
    nothing, some = body.branches(choice)
    zeros = body.constant(nothing)
    if zeros is None or zeros.any():
        return None
    last = body.maker(some, "If")
    if last is not None:
        found = _last(body, branch, last, count)
    else:
        found = _whole(body, branch, some, count)
    if found is None or found.span != tuple(map(body.plain, same.input)):
        return None
    return replace(found, blank=True)


def _last(body: Body, branch: Branch, choice: Proto, count: int) -> _Found | None:
    """The turns, the last of which is told apart, as it divides by another number."""
    if not _is_of_last(body, choice, count):
        return None
    here, others = body.branches(choice)
    found = _reduction(body, branch, others)
    return None if found is None else _mean(body, branch, here, found)


def _whole(body: Body, branch: Branch, name: str, count: int) -> _Found | None:
    """A reduction of one of two slices, of which that of the last turn goes to the end."""
    node = body.maker(name, *_MODES)
    choice = body.maker(node.input[0], "If") if node is not None else None
    if choice is None:
        return _reduction(body, branch, name)
    if not _is_of_last(body, choice, count):
        return None
    here, others = body.branches(choice)
    found = _reduction(body, branch, name, others)
    one = _reduction(body, branch, name, here, open_end=True)
    if found is None or one is None or one.span[0] != found.span[0]:
        return None
    return replace(found, last="whole") if replace(one, span=found.span) == found else None


def _is_of_last(body: Body, choice: Proto, count: int) -> bool:
    """Whether an If asks for the last turn."""
    asked = body.maker(choice.input[0], "Equal")
    if asked is None or body.place(asked.input[0]) != 0:
        return False
    return body.number(asked.input[1]) == count - 1


def _mean(body: Body, branch: Branch, name: str, found: _Found) -> _Found | None:
    """A sum divided by how far the run begins before the end, if it does."""
    choice = body.maker(name, "If")
    asked = body.maker(choice.input[0], "Greater") if choice is not None else None
    if choice is None or asked is None or body.number(asked.input[1]) != 0:
        return None
    many, (divided, plain) = asked.input[0], body.branches(choice)
    quotient, rest = body.maker(divided, "Div"), body.maker(many, "Sub")
    if quotient is None or rest is None or found.mode != "mean":
        return None
    total = _reduction(body, branch, quotient.input[0])
    alike = total is not None and total == _reduction(body, branch, plain)
    whole = body.number(rest.input[0]) == found.length
    if not alike or total != replace(found, mode="sum") or not whole:
        return None
    if body.plain(rest.input[1]) != found.span[0] or body.plain(quotient.input[1]) != many:
        return None
    return replace(found, last="mean")


def _reduction(
    body: Body, branch: Branch, name: str, rows: str = "", open_end: bool = False
) -> _Found | None:
    """A reduction of a slice of rows, or of `rows`; it goes to the end of all if `open_end`."""
    node = body.maker(name, *_MODES)
    if node is None or body.axes(node) != [0]:
        return None
    sliced = _sliced(body, branch, rows or node.input[0])
    if sliced is None or len(sliced.shape) != 2 or sliced.elements not in (_FLOAT, _DOUBLE):
        return None
    if open_end and body.number(sliced.span[1]) != sliced.shape[0]:
        return None
    kept = next((bool(item.i) for item in node.attribute if item.name == "keepdims"), True)
    return _Found(_MODES[node.op_type], sliced.whole, sliced.span, sliced.shape[0], kept)


@dataclass(frozen=True)
class _Sliced:
    """A slice of rows as the whole of them, of this shape and type, and the slice's bounds."""

    whole: str
    span: tuple[str, str]
    shape: tuple[int, ...]
    elements: int


def _sliced(body: Body, branch: Branch, name: str) -> _Sliced | None:
    """Operators that take each row by itself compute the same of all rows, before the slice."""
    node = body.maker(name, "Slice", "Gather", "Mul", "Unsqueeze")
    if node is None:
        return None
    match node.op_type:
        case "Slice":
            return _slice(body, node)
        case "Gather":
            return _taken(body, branch, node)
        case "Mul":
            return _multiplied(body, branch, node)
        case _:
            return _raised(body, branch, node)


def _slice(body: Body, node: Proto) -> _Sliced | None:
    shape = body.scene.shape(node.input[0])
    if shape is None or not body.is_outer(node.input[0]) or not body.is_of_first_axis(node):
        return None
    start, end = (body.plain(name) for name in node.input[1:3])
    elements = body.scene.types[node.input[0]].tensor_type.elem_type
    return _Sliced(str(node.input[0]), (start, end), tuple(shape), elements)


def _taken(body: Body, branch: Branch, node: Proto) -> _Sliced | None:
    places, table = _sliced(body, branch, node.input[1]), str(node.input[0])
    shape = body.scene.shape(table)
    if places is None or shape is None or len(shape) != 2 or not body.is_outer(table):
        return None
    if len(places.shape) != 1 or any(item.i for item in node.attribute):
        return None
    rows = f"{places.whole}/rows of {table}"
    as_node(branch, "Gather", [table, places.whole], rows, axis=0)
    elements = body.scene.types[table].tensor_type.elem_type
    return _Sliced(rows, places.span, (places.shape[0], shape[1]), elements)


def _multiplied(body: Body, branch: Branch, node: Proto) -> _Sliced | None:
    one, other = (_sliced(body, branch, name) for name in node.input)
    if one is None or other is None or one.span != other.span:
        return None
    if one.shape[0] != other.shape[0] or len(one.shape) != len(other.shape):
        return None
    rows = f"{one.whole} by {other.whole}"
    as_node(branch, "Mul", [one.whole, other.whole], rows)
    shape = tuple(np.broadcast_shapes(one.shape, other.shape))
    return _Sliced(rows, one.span, shape, one.elements)


def _raised(body: Body, branch: Branch, node: Proto) -> _Sliced | None:
    """A weight for each row, as a column."""
    weights = _sliced(body, branch, node.input[0])
    if weights is None or len(weights.shape) != 1 or body.axes(node) not in ([1], [-1]):
        return None
    column = f"{weights.whole}/column"
    shape = as_constant(branch, f"{column}/shape", np.array([weights.shape[0], 1], np.int64))
    as_node(branch, "Reshape", [weights.whole, shape], column)
    return _Sliced(column, weights.span, (weights.shape[0], 1), weights.elements)
