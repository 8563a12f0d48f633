"""Images that are resized to open sizes."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx_import.open_node import Expr, OpenNode, shape_of
from hybridc.compiler.frontends.onnx_import.open_resampling import Axis, How, resampled


def resize(node: OpenNode) -> Expr | None:
    """Images as large as sizes say that are not constant, or scales of open axes."""
    extents, text = node.shape(), _texts(node.options)
    wanted = node.list(3) if len(node.inputs) > 3 and node.inputs[3] is not None else None
    scales = _scales(node) if wanted is None else []
    if wanted is None:
        wanted = [_scaled(node, n, by) for n, by in zip(extents, scales, strict=False)]
    if not any(map(_open, wanted)):
        return None
    mode = text.get("mode", "nearest")
    coordinates = text.get("coordinate_transformation_mode", "half_pixel")
    loose = text.get("keep_aspect_ratio_policy", "stretch") != "stretch"
    if loose or any(node.options.get(name) for name in ("antialias", "axes", "exclude_outside")):
        raise UnsupportedError("such options, and sizes that are not constants")
    x = node.inputs[0]
    changed = [a for a, size in enumerate(wanted) if not node.sizes.same(size, extents[a])]
    rounding = text.get("nearest_mode", _ROUNDED)
    enlarged = all(by >= 1 and by == by // 1 for by in scales)
    if mode == "nearest" and _repeats(coordinates, rounding, bool(scales) and enlarged):
        for axis in changed:
            x = _repeated(x, axis, extents[axis], wanted[axis])
        return x
    images = len(extents) == 4 and min(changed, default=2) > 1 and str(x.ty.dtype) == "float32"
    if mode == "linear" and images and coordinates in _ALIKE and (not scales or enlarged):
        size = shape_of(wanted[2:])
        return relax.op.image.resize2d(x, size, coordinate_transformation_mode=coordinates)
    sharp = float(node.options.get("cubic_coeff_a", -0.75))
    how = How(str(x.ty.dtype), len(extents), mode, coordinates, rounding, sharp)
    for axis in changed:
        scale = float(scales[axis]) if scales else None
        x = resampled(x, Axis(axis, extents[axis], wanted[axis], scale), how)
    return x


# Of one element the second has another place; TVM computes corners of whole numbers alone.
_ALIKE = frozenset({"half_pixel"})
_FINEST = 64  # steps of a scale by which sizes are multiplied
_ROUNDED = "round_prefer_floor"  # Resize's default


def _scales(node: OpenNode) -> list[Fraction]:
    """The scales of a Resize, where one changes an open axis; else none.

    Fractions of few bits, by which sizes are multiplied exactly, as in fp32.
    """
    held = getattr(node.inputs[2], "value", None) if len(node.inputs) > 2 else None
    if held is None or node.options.get("axes"):
        return []
    scales = [Fraction(float(scale)) for scale in held.numpy()]
    changed = any(by != 1 and _open(n) for by, n in zip(scales, node.shape(), strict=False))
    return scales if changed and all(by.denominator <= _FINEST for by in scales) else []


def _scaled(node: OpenNode, extent: Any, by: Fraction) -> Any:
    """An extent times a scale, rounded down; it has elements."""
    wanted = node.sizes.plain(extent * by.numerator // by.denominator)
    node.sizes.raise_until_positive(wanted, f"a Resize by {float(by):g} leaves an element")
    return wanted


def _open(size: Any) -> bool:
    return not isinstance(size, int)


def _repeats(coordinates: str, rounding: str, whole: bool) -> bool:
    """Whether the nearest elements are those at `floor(i * extent / wanted)`.

    By a whole scale the middle of an element lies less than half an element from that of its
    source.
    """
    if whole and coordinates in ("half_pixel", "pytorch_half_pixel"):
        return rounding.startswith("round")
    if whole and coordinates == "tf_half_pixel_for_nn":
        return rounding == "floor"
    return (coordinates, rounding) == ("asymmetric", "floor")


def _texts(options: Mapping[str, Any]) -> dict[str, str]:
    return {name: value.decode() for name, value in options.items() if isinstance(value, bytes)}


def _repeated(x: Expr, axis: int, extent: Any, wanted: Any) -> Expr:
    """Of each place along an axis the element at or before it, `floor(i * extent / wanted)`."""

    def number(size: Any) -> Expr:
        return relax.op.shape_to_tensor(shape_of([size]))

    places = relax.op.multiply(relax.op.arange(0, wanted, 1, "int64"), number(extent))
    return relax.op.take(x, relax.op.floor_divide(places, number(wanted)), axis=axis)
