"""Resize and Upsample in every mode: each axis is a weighted sum of few elements of the input.

Sizes are static, so places and weights are constants.  What TVM's image operators compute rightly
is left to them, since passes and schedules know these.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from tvm import relax

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import (
    Converter,
    Expr,
    Node,
    dtype,
    is_float,
    static,
)
from hybridc.compiler.ir.rewrite import Extent, are_known, constant
from hybridc.compiler.kernels.images import resampling
from hybridc.compiler.model import Array

# Coordinates of these are the same in TVM, where a scale is the exact ratio of sizes.
_ALIKE = {"half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"}
# Likewise, but for the nearest elements alone.
_OF_TENSORFLOW = "tf_half_pixel_for_nn"
_FEW = 4  # taps that are gathered; more become a matrix product
_IMAGE = 4  # axes
_BYTES = ("uint8", "int8")
# Parts of an element that places may be off by: a fifth of what verification lets pass.
_OFF = 2e-5
_ROUNDINGS: Mapping[str, Callable[[Array], Array]] = {
    # A sum with a half would be rounded itself.
    "round_prefer_floor": lambda x: np.floor(x) + (x - np.floor(x) > 0.5),
    "round_prefer_ceil": lambda x: np.floor(x) + (x - np.floor(x) >= 0.5),
    "floor": np.floor,
    "ceil": np.ceil,
}


@dataclass(frozen=True)
class _Axis:
    """How one axis is resized: `region` is the part of it that tf_crop_and_resize reads."""

    axis: int
    before: int  # the size; of an axis that stays it may be open
    after: int
    scale: float
    region: tuple[float, float] = (0.0, 1.0)

    @property
    def same(self) -> bool:
        return self.before == self.after and self.scale == 1 and self.region == (0.0, 1.0)

    @property
    def exact(self) -> bool:
        """Whether the scale is the ratio of the sizes."""
        return bool(np.float32(self.after / self.before) == np.float32(self.scale))

    def places(self, mode: str, kind: type[np.floating[Any]] = np.float64) -> Array:
        """Where in the input each element of the output lies, computed in `kind`."""
        y: Array = np.arange(self.after, dtype=kind)
        scale: float = y.dtype.type(self.scale)  # any other would widen the places
        extent = scale * self.before
        first, last = self.region
        match mode:
            case "align_corners":
                return y * 0 if extent == 1 else y * (self.before - 1) / (extent - 1)
            case "asymmetric" | "tf_half_pixel_for_nn":
                return (y if mode == "asymmetric" else y + 0.5) / scale
            case "tf_crop_and_resize":
                width = (last - first) * (self.before - 1)
                inner = y * 0 + width / 2 if extent == 1 else y * width / (extent - 1)
                return inner + first * (self.before - 1)
            case "pytorch_half_pixel" if self.after == 1:
                return y * 0
            case "pytorch_half_pixel" | "half_pixel":
                return (y + 0.5) / scale - 0.5
            case "half_pixel_symmetric":
                offset = self.before / 2 * (1 - self.after / extent)
                return offset + (y + 0.5) / scale - 0.5
            case _:
                raise UnsupportedError(f"coordinate_transformation_mode={mode}")


def _resize(node: Node) -> Expr:
    coordinates = node.get("coordinate_transformation_mode", "half_pixel")
    if node.opset < 11:
        coordinates = "asymmetric"
    axes = _axes(node, coordinates)
    if _left_to_tvm(node, axes, coordinates):
        return None
    mode = node.get("mode", "nearest")
    x, s, kind = node.inputs[0], node.scope, dtype(node.inputs[0])
    if mode != "nearest":
        if not is_float(x):
            raise UnsupportedError(f"mode={mode} for {kind}")
        x = s.astype(x, "float32") if kind == "float16" else x
    for axis in axes:
        if not axis.same:
            x = _along(node, x, axis, coordinates)
    if coordinates == "tf_crop_and_resize":
        x = _outside(node, x, axes)
    return s.astype(x, kind) if dtype(x) != kind else x


def _axes(node: Node, coordinates: str) -> list[_Axis]:
    """How each axis is resized, from scales or sizes for all axes or some."""
    shape = node.shape()
    rank = len(shape)
    chosen = [axis % rank for axis in node.get("axes", list(range(rank)))]
    older = node.opset < 11  # scales were the second input
    scales, sizes = node.value(1 if older else 2), None if older else node.value(3)
    if node.operator == "Upsample" and node.get("scales") is not None:
        scales = np.array(node.get("scales"))
    cropped = coordinates == "tf_crop_and_resize"
    region: Array = np.ravel(node.value(1, [])) if cropped else np.empty(0)
    policy = node.get("keep_aspect_ratio_policy", "stretch")
    resized: dict[int, _Axis] = {}
    if sizes is not None and sizes.size:
        if not are_known(shape[axis] for axis in chosen):
            raise UnsupportedError("sizes that do not follow the open ones")
        ratios = [float(size) / shape[axis] for axis, size in zip(chosen, sizes, strict=True)]
        if policy != "stretch":
            ratio = min(ratios) if policy == "not_larger" else max(ratios)
            ratios = [ratio] * len(ratios)
            sizes = [int(ratio * shape[axis] + 0.5) for axis in chosen]
        found = [(int(size), ratio) for size, ratio in zip(sizes, ratios, strict=True)]
    elif scales is not None and scales.size:
        values = [float(scale) for scale in np.ravel(scales)]
        sizes = [_scaled(shape[axis], scale) for axis, scale in zip(chosen, values, strict=True)]
        found = list(zip(sizes, values, strict=True))
    else:
        raise UnsupportedError("neither scales nor sizes")
    for index, (axis, (size, scale)) in enumerate(zip(chosen, found, strict=True)):
        part = (float(region[index]), float(region[index + len(chosen)])) if len(region) else (0, 1)
        resized[axis] = _Axis(axis, shape[axis], size, scale, part)
    return [resized[axis] for axis in sorted(resized)]


def _scaled(extent: Extent, scale: float) -> Extent:
    """A size times a scale; one that is open can only stay."""
    if scale == 1:
        return extent
    if not isinstance(extent, int):
        raise UnsupportedError("open sizes that are scaled")
    # In float32, as ONNX's shape inference multiplies.
    return int(np.floor(np.float32(scale) * np.float32(extent)))


def _left_to_tvm(node: Node, axes: Sequence[_Axis], coordinates: str) -> bool:
    """Images of float32 whose batch and channels stay, by options that TVM reads rightly.

    Images of float16 too, and of bytes those whose nearest elements are taken.
    """
    rank, kind = len(node.shape()), dtype(node.inputs[0])
    image = rank == _IMAGE and are_known(node.shape())
    nearest = image and node.get("mode", "nearest") == "nearest"
    options = node.get("antialias", 0) or node.get("exclude_outside", 0) or node.get("axes")
    return (
        node.operator == "Resize"
        and 3 <= rank <= 5
        and (kind == "float32" or (image and kind == "float16") or (nearest and kind in _BYTES))
        and node.opset >= 11
        and not options
        and node.get("keep_aspect_ratio_policy", "stretch") == "stretch"
        and (coordinates in _ALIKE or (nearest and coordinates == _OF_TENSORFLOW))
        and all(axis.same for axis in axes[:2])
        and all(axis.exact and axis.after > 1 and axis.before > 1 for axis in axes[2:])
        and all(_placed_alike(node, axis, coordinates, rank) for axis in axes[2:])
    )


def _along(node: Node, x: Expr, axis: _Axis, coordinates: str) -> Expr:
    """Resize one axis."""
    s = node.scope
    if node.get("mode", "nearest") == "nearest":
        nearest = _nearest(node, axis, coordinates)
        return s.take(x, relax.const(nearest, "int64"), axis=axis.axis)
    taps, weights = _taps(node, axis, _places(node, axis, coordinates))
    if taps.shape[1] > _FEW:
        return _product(s, x, axis, taps, weights)
    total: Expr = None
    for index, weight in zip(taps.T, weights.T, strict=True):
        part = s.take(x, relax.const(index.copy(), "int64"), axis=axis.axis)
        shape = [1] * len(static(x))
        shape[axis.axis] = axis.after
        part = s.multiply(part, weight.reshape(shape))
        total = part if total is None else s.add(total, part)
    return total


def _nearest(node: Node, axis: _Axis, coordinates: str) -> Array:
    """The element of the input that each of the output is, as ONNX Runtime finds it in float32.

    Where a place lies half between two elements, or on one, rounding decides which it is.
    """
    rounding = node.get("nearest_mode", "round_prefer_floor")
    if node.opset < 11:  # before there was a choice
        rounding = "ceil" if axis.scale < 1 else "floor"
    # That one of ONNX Runtime's follows neither precision: of 30 to 64, places 16 and 48 differ.
    kind = np.float64 if rounding == "round_prefer_ceil" else np.float32
    places = _ROUNDINGS[rounding](axis.places(coordinates, kind))
    found: Array = np.clip(places, 0, axis.before - 1).astype(np.int64)
    return found


def _places(node: Node, axis: _Axis, coordinates: str) -> Array:
    """Where each element of the output lies between those that are summed, as others round it."""
    if node.of_torch and axis.exact and coordinates in _ALIKE and not node.get("antialias", 0):
        return resampling.coordinates(axis.before, axis.after, coordinates)
    # Antialiasing, and torch by scales, compute places by other formulas, which round otherwise.
    other = node.get("antialias", 0) or node.of_torch
    return axis.places(coordinates, np.float64 if other else np.float32)


def _placed_alike(node: Node, axis: _Axis, coordinates: str, rank: int) -> bool:
    """Whether TVM's operator takes the same elements, or sums them with the same weights.

    Images have kernels of ours (`resampling`), which place as ONNX Runtime and torch do.
    """
    if node.get("mode", "nearest") != "nearest":
        theirs = resampling.coordinates(axis.before, axis.after, coordinates)
        ours = _places(node, axis, coordinates)
        return rank == _IMAGE or np.allclose(theirs, ours, rtol=0, atol=_OFF)
    rounding = node.get("nearest_mode", "round_prefer_floor")
    theirs = resampling.nearest(axis.before, axis.after, coordinates, rounding)
    return np.array_equal(theirs, _nearest(node, axis, coordinates))


def _taps(node: Node, axis: _Axis, places: Array) -> tuple[Array, Array]:
    """The elements that make up each element of the output, `[after, taps]`, and their weights."""
    cubic = node.get("mode") in ("cubic", b"cubic")
    sharp = float(node.get("cubic_coeff_a", -0.75))
    # Antialiasing widens the filter where the axis shrinks.
    narrow = min(axis.scale, 1.0) if node.get("antialias", 0) else 1.0
    reach = int(np.ceil((2 if cubic else 1) / narrow))
    taps = np.floor(places).astype(np.int64)[:, None] + np.arange(1 - reach, reach + 1)
    distance = np.abs(taps - places[:, None]) * narrow
    weights = _cubic(distance, sharp) if cubic else np.clip(1 - distance, 0, None)
    if node.get("exclude_outside", 0):
        weights = np.where((taps < 0) | (taps >= axis.before), 0, weights)
    if node.get("exclude_outside", 0) or node.get("antialias", 0):
        weights = weights / weights.sum(1, keepdims=True)
    return np.clip(taps, 0, axis.before - 1), weights


def _cubic(x: Array, a: float) -> Array:
    """Keys' kernel (1981) at distances x >= 0."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    result: Array = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    return result


def _product(s: Expr, x: Expr, axis: _Axis, taps: Array, weights: Array) -> Expr:
    """The weighted sums as a product with a matrix `[before, after]`."""
    matrix = np.zeros((axis.before, axis.after))
    np.add.at(matrix, (taps, np.arange(axis.after)[:, None]), weights)
    order = list(range(len(static(x))))
    order[axis.axis], order[-1] = order[-1], order[axis.axis]
    last = axis.axis == len(order) - 1
    moved = x if last else s.permute_dims(x, order)
    product = s.matmul(moved, constant(matrix, dtype(x)))
    return product if last else s.permute_dims(product, order)


def _outside(node: Node, x: Expr, axes: Sequence[_Axis]) -> Expr:
    """Elements that lie outside of the input have the extrapolation value."""
    rank = len(static(x))
    outside = np.zeros([1] * rank, bool)
    for axis in axes:
        places = axis.places("tf_crop_and_resize")
        shape = [1] * rank
        shape[axis.axis] = axis.after
        if not axis.same:
            outside = outside | ((places < 0) | (places > axis.before - 1)).reshape(shape)
    if not outside.any():
        return x
    fill = constant(np.array(node.get("extrapolation_value", 0.0)), dtype(x))
    return node.scope.where(constant(np.broadcast_to(outside, static(x)), "bool"), fill, x)


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"Resize": _resize, "Upsample": _resize})
