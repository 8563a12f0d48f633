"""Images that are resized to open sizes."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx_import.open_node import Expr, OpenNode, shape_of


def resize(node: OpenNode) -> Expr | None:
    """Images as large as sizes say that are not constant, or whole scales of open axes."""
    extents, text = node.shape(), _texts(node.options)
    wanted = node.list(3) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    scaled = wanted is None
    if wanted is None:
        wanted = [node.sizes.plain(n * by) for n, by in zip(extents, _scales(node), strict=False)]
    if not any(map(_open, wanted)):
        return None
    mode = text.get("mode", "nearest")
    coordinates = text.get("coordinate_transformation_mode", "half_pixel")
    loose = text.get("keep_aspect_ratio_policy", "stretch") != "stretch"
    if loose or any(node.options.get(name) for name in ("antialias", "axes", "exclude_outside")):
        raise UnsupportedError("such options, and sizes that are not constants")
    x = node.inputs[0]
    changed = [a for a, size in enumerate(wanted) if not node.sizes.same(size, extents[a])]
    if mode == "nearest" and _repeats(coordinates, text.get("nearest_mode", _ROUNDED), scaled):
        for axis in changed:
            x = _repeated(x, axis, extents[axis], wanted[axis])
        return x
    images = len(extents) == 4 and min(changed, default=2) > 1 and str(x.ty.dtype) == "float32"
    if mode != "linear" or not images or coordinates not in _ALIKE:
        raise UnsupportedError(f"mode={mode}, {coordinates} and sizes that are not constants")
    # Of one element these two have no distance to divide, or another place.
    apart = all(node.sizes.holds(size > 1) for size in wanted[2:])
    if coordinates != "half_pixel" and not apart:
        raise UnsupportedError(f"{coordinates} and open sizes that may be 1")
    size = shape_of(wanted[2:])
    return relax.op.image.resize2d(x, size, coordinate_transformation_mode=coordinates)


_ALIKE = frozenset({"half_pixel", "pytorch_half_pixel", "align_corners"})
_ROUNDED = "round_prefer_floor"  # Resize's default


def _scales(node: OpenNode) -> list[int]:
    """The scales of a Resize that are whole and enlarge an open axis; else none."""
    held = getattr(node.inputs[2], "value", None) if len(node.inputs) > 2 else None
    if held is None or node.options.get("axes"):
        return []
    scales, extents = held.numpy(), node.shape()
    enlarged = any(scale > 1 for scale, n in zip(scales, extents, strict=False) if _open(n))
    return scales.astype(int).tolist() if enlarged and np.all(scales == np.floor(scales)) else []


def _open(size: Any) -> bool:
    return not isinstance(size, int)


def _repeats(coordinates: str, rounding: str, scaled: bool) -> bool:
    """Whether the nearest elements are those at `floor(i * extent / wanted)`.

    By a whole scale the middle of an element lies less than half an element from that of its
    source.
    """
    if scaled and coordinates in ("half_pixel", "pytorch_half_pixel"):
        return rounding.startswith("round")
    return (coordinates, rounding) == ("asymmetric", "floor")


def _texts(options: Mapping[str, Any]) -> dict[str, str]:
    return {name: value.decode() for name, value in options.items() if isinstance(value, bytes)}


def _repeated(x: Expr, axis: int, extent: Any, wanted: Any) -> Expr:
    """Of each place along an axis the element at or before it, `floor(i * extent / wanted)`."""

    def number(size: Any) -> Expr:
        return relax.op.shape_to_tensor(shape_of([size]))

    places = relax.op.multiply(relax.op.arange(0, wanted, 1, "int64"), number(extent))
    return relax.op.take(x, relax.op.floor_divide(places, number(wanted)), axis=axis)
