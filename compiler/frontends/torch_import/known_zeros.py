"""Where tensors of a program may be other than zero, and which parts of them are read.

A spectrum of which most bins are cut off is zeros with a few slices written into it, and of the
spectrum before that only a few bins are read.  Places are told along each axis by themselves: those
in question are where all of them meet.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from hybridc.compiler.frontends.onnx.node import Expr, Scope
from hybridc.compiler.ir.rewrite import constant
from hybridc.compiler.model import Array

Node = Any  # torch.fx.Node
Places = tuple[Array, ...]  # for each axis, in rising order
Known = Mapping[Node, Places]

_SLICE, _SLICE_SCATTER = "slice.Tensor", "slice_scatter.default"
_COPY, _PAD = "copy.default", "constant_pad_nd.default"
_DEEPEST = 32  # tensors written into one another that are looked through


def supports(nodes: Iterable[Node]) -> dict[Node, Places]:
    """Where tensors may be other than zero, of those of which something is known."""
    found: dict[Node, Places] = {}
    for node in nodes:
        rule = _RULES.get(name_of(node))
        if rule is not None and is_static(node) and (places := rule(node, found)) is not None:
            found[node] = places
    return found


def reads(node: Node) -> tuple[Places, dict[Node, Places]]:
    """Which places of a result something reads, and which of them each slice of it shows."""
    shown: dict[Node, Places] = {node: everywhere(node)}
    read = [np.zeros(0, np.int64) for _ in shown[node]]
    for each in shown_in_turn(node, shown):
        if any(name_of(user) != _SLICE for user in each.users):
            read = [np.union1d(a, b) for a, b in zip(read, shown[each], strict=True)]
    return tuple(read), shown


def shown_in_turn(node: Node, shown: dict[Node, Places]) -> Iterable[Node]:
    """A node and the slices of it, which are noted in `shown` as they come."""
    waiting = [node]
    while waiting:
        each = waiting.pop()
        yield each
        for user in each.users:
            if name_of(user) == _SLICE and is_static(user):
                axis, numbers = chosen(user)
                shown[user] = _replaced(shown[each], axis, shown[each][axis][numbers])
                waiting.append(user)


@dataclass(frozen=True)
class Reader:
    """Reads tensors of a program of which something is known, as imported so far in `values`."""

    scope: Scope
    values: Mapping[Node, Expr]
    known: Known

    def gathered(self, node: Node, places: Places, depth: int = 0) -> Expr:
        """Elements at places along each axis, read from what a tensor is put together of."""
        name = name_of(node)
        if depth < _DEEPEST and node in self.known:
            if name == _SLICE_SCATTER:
                return self._joined(node, places, depth + 1)
            if (source := _source(node, places)) is not None:
                return self.gathered(*source, depth + 1)
        return taken(self.scope, self.values[node], everywhere(node), places)

    def _joined(self, node: Node, places: Places, depth: int) -> Expr:
        """Elements of what was written, and of what stood there, side by side."""
        given, (axis, numbers) = bound(node), chosen(node)
        pieces: list[Expr] = []
        for run in _runs(places[axis], numbers):
            written = run[0] in numbers
            inner = np.searchsorted(numbers, run) if written else run
            source = given["src" if written else "self"]
            pieces.append(self.gathered(source, _replaced(places, axis, inner), depth))
        return pieces[0] if len(pieces) == 1 else self.scope.concat(pieces, axis=axis)


def _source(node: Node, places: Places) -> tuple[Node, Places] | None:
    """What a node shows a part of, and the same places in it; None where it has others too."""
    name, given = name_of(node), bound(node)
    if name == _COPY:
        return given["src"], places
    if name == _SLICE:
        axis, numbers = chosen(node)
        return given["self"], _replaced(places, axis, numbers[places[axis]])
    if name == _PAD:
        moved = tuple(p - b for p, b in zip(places, _before(node), strict=True))
        extents = given["self"].meta["val"].shape
        if all(len(m) and m[0] >= 0 and m[-1] < n for m, n in zip(moved, extents, strict=True)):
            return given["self"], moved
    return None


def taken(s: Scope, x: Expr, held: Places, wanted: Places) -> Expr:
    """What is wanted of a tensor that holds some places of another; it may have further axes."""
    for axis, (have, want) in enumerate(zip(held, wanted, strict=True)):
        if len(have) == len(want):
            continue
        at = np.searchsorted(have, want)
        first, last = int(at[0]), int(at[-1]) + 1
        if last - first == len(at):
            x = s.strided_slice(x, [axis], [first], [last])
        else:
            x = s.take(x, constant(at, "int64"), axis=axis, mode="clip")
    return x


def everywhere(node: Node) -> Places:
    """All places of a tensor of static shape."""
    return tuple(np.arange(extent) for extent in node.meta["val"].shape)


def is_static(node: Node) -> bool:
    """Whether a node's result is one tensor of known shape."""
    shape = getattr(node.meta.get("val"), "shape", None)
    return shape is not None and all(isinstance(extent, int) for extent in shape)


def name_of(node: Node) -> str:
    """The name of the operator of a node, if it is a call of one."""
    return str(getattr(node.target, "__name__", "")) if node.op == "call_function" else ""


def bound(node: Node) -> dict[str, Any]:
    """The arguments of an operator by their names, with defaults."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {}
    given = dict(zip((a.name for a in schema.arguments), node.args, strict=False)) | node.kwargs
    return {a.name: given.get(a.name, a.default_value) for a in schema.arguments}


def chosen(node: Node) -> tuple[int, Array]:
    """The axis of a slice, and which places along it are in it."""
    given = bound(node)
    shape = given["self"].meta["val"].shape
    axis = given["dim"] % len(shape)
    chosen = slice(given["start"], given["end"], given["step"])
    return axis, np.arange(shape[axis])[chosen]


def _replaced(places: Places, axis: int, new: Array) -> Places:
    return (*places[:axis], new, *places[axis + 1 :])


def _runs(places: Array, numbers: Array) -> Sequence[Array]:
    """Places in parts of which all are among the numbers, or none."""
    inside = np.isin(places, numbers)
    return np.split(places, np.flatnonzero(np.diff(inside)) + 1)


def _before(node: Node) -> list[int]:
    """How many places a padding adds before each axis."""
    pads, rank = bound(node)["pad"], len(node.meta["val"].shape)
    return [pads[2 * (rank - 1 - a)] if 2 * (rank - 1 - a) < len(pads) else 0 for a in range(rank)]


def _filled(node: Node, _: Known) -> Places | None:
    if bound(node).get("fill_value", 0) != 0:
        return None
    return tuple(np.zeros(0, np.int64) for _ in node.meta["val"].shape)


def _same(name: str) -> Callable[[Node, Known], Places | None]:
    def rule(node: Node, known: Known) -> Places | None:
        source = bound(node)[name]
        same = is_static(source) and source.meta["val"].shape == node.meta["val"].shape
        return known.get(source) if same else None

    return rule


def _sliced(node: Node, known: Known) -> Places | None:
    if (places := known.get(bound(node)["self"])) is None:
        return None
    axis, numbers = chosen(node)
    return _replaced(places, axis, np.flatnonzero(np.isin(numbers, places[axis])))


def _scattered(node: Node, known: Known) -> Places | None:
    given = bound(node)
    if (places := known.get(given["self"])) is None or not is_static(given["src"]):
        return None
    axis, numbers = chosen(node)
    source = known.get(given["src"], everywhere(given["src"]))
    source = _replaced(source, axis, numbers[source[axis]])
    return tuple(np.union1d(a, b) for a, b in zip(places, source, strict=True))


def _padded(node: Node, known: Known) -> Places | None:
    given = bound(node)
    if given["value"] != 0 or min(given["pad"], default=0) < 0 or not is_static(given["self"]):
        return None
    source = known.get(given["self"], everywhere(given["self"]))
    return tuple(p + b for p, b in zip(source, _before(node), strict=True))


_RULES: Mapping[str, Callable[[Node, Known], Places | None]] = MappingProxyType(
    {
        "alias.default": _same("self"),
        "clone.default": _same("self"),
        _COPY: _same("src"),
        _PAD: _padded,
        "full.default": _filled,
        "full_like.default": _filled,
        "new_zeros.default": _filled,
        _SLICE: _sliced,
        _SLICE_SCATTER: _scattered,
        "zeros.default": _filled,
        "zeros_like.default": _filled,
    }
)
