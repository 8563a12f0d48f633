"""Operands that have to be of one size, whose sizes follow from open ones in different ways.

A network that halves an image and doubles it again joins `h // 2 * 2` rows to the `h` that it kept.
The two are equal where h is even, and in no other size does the model compute anything.
"""

from collections.abc import Sequence
from typing import Any

from tvm import relax

from hybridc.compiler.frontends.onnx_graph.model_file import Proto
from hybridc.compiler.frontends.onnx_import.sizes import Sizes

Expr = Any  # a Relax expression

_BROADCAST = frozenset(
    {
        *("Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max"),
        *("Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor"),
    }
)


def unite(node: Proto, values: dict[str, Expr], sizes: Sizes, builder: Any) -> None:
    """Restrict open sizes to those at which a node's operands fit together, where that is needed.

    An operand whose size is written in another way than that of the others is cut to it, which
    leaves all of it.  Nothing is done where no step of one open size makes them equal.
    """
    joined = node.op_type == "Concat"
    if node.domain not in ("", "ai.onnx") or not (joined or node.op_type in _BROADCAST):
        return
    names = list(dict.fromkeys(n for n in node.input if n and n not in sizes.known))
    shapes = {name: sizes.shape_of(values[name]) for name in names}
    known = {name: shape for name, shape in shapes.items() if shape is not None}
    rank = max(map(len, known.values()), default=0)
    along = next((int(a.i) for a in node.attribute if a.name == "axis"), 0) if joined else None
    free = None if along is None else along - rank if along >= 0 else along
    wanted: dict[str, dict[int, Any]] = {name: {} for name in known}
    for axis in range(-rank, 0):
        if axis == free:
            continue
        extents = {name: shape[axis] for name, shape in known.items() if len(shape) >= -axis}
        for name, extent in _united(extents, sizes, node.op_type, joined).items():
            wanted[name][axis] = extent
    for name, changed in wanted.items():
        if changed:
            values[name] = builder.emit(_cut(values[name], len(known[name]), changed))


def _united(extents: dict[str, Any], sizes: Sizes, operator: str, joined: bool) -> dict[str, Any]:
    """Of operands whose extent along an axis is written in another way, the one to cut them to."""
    kept = {name: n for name, n in extents.items() if joined or not isinstance(n, int) or n != 1}
    if len(kept) < 2 or all(isinstance(n, int) for n in kept.values()):
        return {}
    target = min(kept.values(), key=lambda extent: len(str(extent)))
    other = {name: n for name, n in kept.items() if not sizes.same(n, target)}
    why = f"else operands of {operator} differ in size"
    agreed = all(sizes.agree(n, target, why) for n in other.values())
    return dict.fromkeys(other, target) if agreed else {}


def _cut(value: Expr, rank: int, extents: dict[int, Any]) -> Expr:
    """A tensor as a slice of itself whose sizes are written as wanted."""

    def each(sizes: Sequence[Any]) -> list[Any]:
        return [relax.prim_value(size) for size in sizes]

    axes, ends = [axis + rank for axis in extents], each(list(extents.values()))
    starts, steps = each([0] * len(axes)), each([1] * len(axes))
    return relax.op.strided_slice(value, axes, starts, ends, steps, assume_inbound=True)
