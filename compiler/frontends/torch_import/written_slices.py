"""Slices written to an input of which a program gives the whole: it may be overwritten.

A slice of a slice is written as a tensor that is written to a tensor.  Here it is one, at places
along each axis.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from hybridc.compiler.frontends.aten import slices
from hybridc.compiler.frontends.onnx.node import Expr
from hybridc.compiler.frontends.torch_import import known_zeros
from hybridc.compiler.frontends.torch_import.known_zeros import Node, Places
from hybridc.compiler.model import Array

_ROWS = ("index_put.default",)  # which write to the same memory as well


class Writes:
    """Those of a program."""

    def __init__(self, nodes: Iterable[Node]) -> None:
        self._found: dict[Node, tuple[Places, Node]] = {}
        for node in nodes:
            if node.op == "output":
                for result in node.all_input_nodes:
                    self._follow(result)

    def _follow(self, node: Node) -> None:
        """Find what is written on the way from an input to a result."""
        chain: list[Node] = []
        while (written := _is_write(node)) or known_zeros.name_of(node) in _ROWS:
            chain += [node] if written else []
            node = node.args[0]
        if node.op == "placeholder":
            self._found.update({each: _written(each) for each in chain})

    def arguments(self, node: Node, env: Mapping[Node, Expr]) -> dict[str, Any]:
        """What the converter of such a write is given besides; nothing for other nodes."""
        if (found := self._found.get(node)) is None:
            return {}
        places, source = found
        return {"src": env[source], slices.PLACES: places}


def _is_write(node: Node) -> bool:
    if known_zeros.name_of(node) not in slices.CONVERTERS:
        return False
    return known_zeros.is_static(node) and not node.meta["val"].is_complex()


def _written(node: Node) -> tuple[Places, Node]:
    """The places at which something is written to a tensor, and what."""
    source, (axis, numbers) = known_zeros.bound(node)["src"], _chosen(node)
    whole = source
    if _is_write(source) and _shows(known_zeros.bound(source)["self"], node):
        inner, source = _written(source)
    else:
        inner = known_zeros.everywhere(source)
    if len(whole.meta["val"].shape) < len(node.meta["val"].shape):
        return (*inner[:axis], numbers, *inner[axis:]), source
    return (*inner[:axis], numbers[inner[axis]], *inner[axis + 1 :]), source


def _shows(view: Node, node: Node) -> bool:
    """Whether a view is of those places of a tensor that a node writes to."""
    written, kind = known_zeros.bound(node), known_zeros.name_of(node)
    if view is written["self"]:
        return len(_chosen(node)[1]) == int(view.meta["val"].shape[_chosen(node)[0]])
    alike = {"slice.Tensor": "slice_scatter.default", "select.int": "select_scatter.default"}
    if alike.get(known_zeros.name_of(view)) != kind:
        return False
    (axis, numbers), (other, places) = _chosen(view), _chosen(node)
    same = known_zeros.bound(view)["self"] is written["self"] and axis == other
    return bool(same) and np.array_equal(numbers, places)


def _chosen(node: Node) -> tuple[int, Array]:
    """The axis that a node slices or selects along, and which places."""
    given = known_zeros.bound(node)
    if "index" not in given:
        return known_zeros.chosen(node)
    shape = given["self"].meta["val"].shape
    axis = given["dim"] % len(shape)
    return axis, np.array([given["index"] % shape[axis]])
