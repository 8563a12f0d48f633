"""Let convolutions and pooling do the padding of a pad operator before them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from types import MappingProxyType

from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import Expr, Graph, operator, rewrite, with_attributes

# The value that each operator takes its own padding to have.
_OWN_PADDING: Mapping[str, float] = MappingProxyType(
    {
        "nn.avg_pool1d": 0.0,
        "nn.avg_pool2d": 0.0,
        "nn.avg_pool3d": 0.0,
        "nn.conv1d": 0.0,
        "nn.conv2d": 0.0,
        "nn.conv3d": 0.0,
        "nn.max_pool1d": -inf,
        "nn.max_pool2d": -inf,
        "nn.max_pool3d": -inf,
    }
)


@dataclass(frozen=True)
class FoldPadding(Pass):
    """Move padding of the spatial axes into the convolution or pooling after it."""

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Fold until no pad can move further; pads in a row fold one by one."""
        return rewrite(module, _fold)


def _fold(value: Expr, graph: Graph) -> Expr | None:
    name = operator(value)
    pad = graph.call(value.args[0], "nn.pad") if name in _OWN_PADDING else None
    if pad is None or pad.attrs.pad_mode != "constant":
        return None
    extra = _spatial(pad.attrs.pad_width, _layout(value))
    if extra is None or pad.attrs.pad_value != _OWN_PADDING[name]:
        return None
    padding = [own + more for own, more in zip(value.attrs.padding, extra, strict=True)]
    operands = [pad.args[0], *list(value.args)[1:]]
    if "pool" not in name:
        return with_attributes(value, operands, padding=padding)
    if not _pool_may_pad(value, padding):
        return None
    # The pad's zeros counted as elements; the pool's own padding must go on counting.
    return with_attributes(value, operands, padding=padding, count_include_pad="avg" in name)


def _layout(call: Expr) -> str:
    return str(call.attrs.layout if "pool" in operator(call) else call.attrs.data_layout)


def _spatial(widths: Sequence[int], layout: str) -> list[int] | None:
    """Padding before each spatial axis, then after each; None if any other axis is padded.

    `widths` holds a pair (before, after) for each axis.
    """
    before: list[int] = []
    after: list[int] = []
    for axis, (first, last) in zip(layout, _pairs(widths), strict=True):
        if first < 0 or last < 0 or (axis in "NC" and first + last):
            return None
        if axis not in "NC":
            before.append(first)
            after.append(last)
    return before + after


def _pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    numbers = [int(width) for width in widths]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def _pool_may_pad(pool: Expr, padding: Sequence[int]) -> bool:
    """Whether a pool that pads itself sees the same windows with the same count."""
    attributes = pool.attrs
    if attributes.ceil_mode:  # windows that start in the padding at the end are dropped
        return False
    if "avg" in operator(pool):
        return bool(attributes.count_include_pad) or not any(attributes.padding)
    # A window of padding alone would give -inf one way and the lowest number the other.
    return all(
        side < size for side, size in zip(padding, list(attributes.pool_size) * 2, strict=True)
    )
