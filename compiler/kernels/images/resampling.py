"""Loop nests for resizing and adaptive pooling of images.

Where a pixel of the result takes its values from, and with which weights, depends on its row and
column alone.  So both are tables, made once by the compiler, and the kernel is a weighted sum of
whole vectors of channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from itertools import product
from math import prod
from operator import add, mul
from typing import Any

import numpy as np
from tvm import relax, te, tirx
from tvm.runtime import tensor

from hybridc.compiler.model import Array

Expr = Any  # tvm.relax.Expr
Tensor = Any  # tvm.te.Tensor

# TVM's own guard against coordinates that fall short of a whole number by rounding.
_EPSILON = np.float32(1e-5)
# Taps in two dimensions that are cheaper than a second pass over memory.
_AT_ONCE = 9
# Taps that are written out; beyond, a loop.
_UNROLLED = 8
_INJECTIVE = 2  # TVM's OpPatternKind
_CROP = "tf_crop_and_resize"  # reads from outside the image too
# Only the nearest element is rounded to; beside other methods this tells whose the operator is.
# Relax's own default, which TVM's importer of torch leaves, and what ONNX's default is.
TORCH_ROUNDING, ONNX_ROUNDING = "round", "round_prefer_floor"
_OF_TORCH = frozenset({"", TORCH_ROUNDING})


@dataclass(frozen=True)
class Taps:
    """For each place along an axis of the result: `index` into the input and `weight`, [out, taps].

    A `weight` of None stands for one tap that is taken as it is.
    """

    index: Array
    weight: Array | None

    @property
    def count(self) -> int:
        """How many elements of the input go into one of the result."""
        return int(self.index.shape[1])


def resize2d(builder: Any, call: Any) -> Expr:
    """Lower `relax.image.resize2d` by tables.

    Coordinates are those of the library that the operator comes from, to the last bit: far to the
    right, one rounding of a coordinate is much of the way from a pixel to the next.  Cropping,
    symbolic shapes and layouts in blocks are left to TVM.
    """
    taps = resize_taps(call)
    if taps is None:
        return call.op.get_attr("FLegalize")(builder, call)
    return _weighted(builder, call, taps)


def resize_taps(call: Any) -> dict[int, Taps] | None:
    """The taps of a `relax.image.resize2d` by axes; None if they are left to TVM."""
    data, attrs, size = call.args[0], call.attrs, call.args[1]
    layout = str(attrs.layout)
    mode = str(attrs.coordinate_transformation_mode)
    if not _takes(data, size, layout) or mode == _CROP:
        return None
    shape = [int(extent) for extent in data.ty.shape.values]
    taps: dict[int, Taps] = {}
    for axis, wanted in zip("HW", size.values, strict=True):
        place = layout.index(axis)
        taps[place] = _taps(shape[place], int(wanted), mode, attrs)
    return taps


def adaptive_avg_pool2d(builder: Any, call: Any) -> Expr:
    """Lower `relax.nn.adaptive_avg_pool2d`: windows of two lengths as one, with weights of zero."""
    data, layout = call.args[0], str(call.attrs.layout)
    if not _takes(data, None, layout) or str(data.ty.dtype) != "float32":
        return call.op.get_attr("FLegalize")(builder, call)
    shape, out = data.ty.shape.values, call.ty.shape.values
    places = [layout.index(axis) for axis in "HW"]
    return _weighted(
        builder, call, {place: _windows(int(shape[place]), int(out[place])) for place in places}
    )


def _takes(data: Expr, size: Expr | None, layout: str) -> bool:
    """Whether the shapes are known and the layout has no blocks of channels."""
    extents = [*(data.ty.shape.values if data.ty.shape is not None else [None])]
    extents += [] if size is None else list(getattr(size, "values", [None]))
    known = all(isinstance(extent, tirx.IntImm) for extent in extents)
    return known and sorted(layout) == sorted("NCHW")


def _windows(extent: int, wanted: int) -> Taps:
    """Averages over floor(i * extent / wanted) to ceil((i + 1) * extent / wanted)."""
    places = np.arange(wanted)
    first = places * extent // wanted
    last = -(-(places + 1) * extent // wanted)
    offsets = np.arange((last - first).max())[None, :]
    inside = offsets < (last - first)[:, None]
    index = np.minimum(first[:, None] + offsets, extent - 1)
    return Taps(index.astype("int32"), (inside / (last - first)[:, None]).astype("float32"))


def _taps(extent: int, wanted: int, mode: str, attrs: Any) -> Taps:
    """What an axis of a resized image reads."""
    method, given = str(attrs.method), str(attrs.rounding_method)
    of_torch = method == "nearest_neighbor" or given in _OF_TORCH
    at = (coordinates if of_torch else _onnx_coordinates)(extent, wanted, mode)
    if method == "nearest_neighbor":
        rounding = given or ("round" if mode == "align_corners" else "floor")
        return Taps(_clamp(_rounded(at, rounding)[:, None], extent), None)
    floor = np.floor(at)
    part = (at - floor)[:, None]
    if method == "linear":
        return Taps(_clamp(_around(floor, 0, 1), extent), np.concatenate([1 - part, part], 1))
    index = _around(floor, -1, 2)
    weight = _cubic(part, np.float32(attrs.cubic_alpha))
    if attrs.cubic_exclude:
        weight = np.where((index < 0) | (index >= extent), np.float32(0), weight)
        weight = weight / weight.sum(1, keepdims=True)
    return Taps(_clamp(index, extent), weight.astype("float32"))


def coordinates(extent: int, wanted: int, mode: str) -> Array:
    """Where the places of the result lie in the input, in float32 as torch rounds.

    Its compilers make one instruction of a product and a difference, which rounds once.
    """
    place = np.arange(wanted).astype("float32")
    scale = np.float32(extent) / np.float32(wanted)
    half = np.float32(0.5)
    match mode:
        case "asymmetric":
            return scale * place
        case "align_corners":
            return np.float32(extent - 1) / np.float32(max(wanted - 1, 1)) * place
        case "tf_half_pixel_for_nn":
            return (place + half) * scale
        case "pytorch_half_pixel" if wanted == 1:
            return 0 * place
        case _:
            return ((place + half).astype("float64") * scale - half).astype("float32")


def _onnx_coordinates(extent: int, wanted: int, mode: str) -> Array:
    """Where the places of the result lie in the input, in float32 as ONNX Runtime rounds."""
    place = np.arange(wanted).astype("float32")
    scale = np.float32(wanted) / np.float32(extent)
    half = np.float32(0.5)
    match mode:
        case "asymmetric":
            return place / scale
        case "align_corners":
            return place * np.float32(extent - 1) / np.float32(max(wanted - 1, 1))
        case "pytorch_half_pixel" if wanted == 1:
            return 0 * place
        case _:
            return (place + half) / scale - half


def nearest(extent: int, wanted: int, mode: str, rounding: str) -> Array:
    """Which of `extent` elements each of those `wanted` is."""
    return _clamp(_rounded(coordinates(extent, wanted, mode), rounding), extent)


def _rounded(at: Array, rounding: str) -> Array:
    match rounding:
        case "round_prefer_floor":
            return np.ceil(at - np.float32(0.5))
        case "round_prefer_ceil":
            return np.floor(at + np.float32(0.5))
        case "floor":
            return np.floor(at + _EPSILON)
        case "ceil":
            return np.ceil(at - _EPSILON)
        case _:
            return np.round(at)


def _cubic(t: Array, alpha: Any) -> Array:
    """The weights of the four neighbours of a place t behind the second (Keys)."""
    square, cube = t * t, t * t * t
    weights = (
        alpha * (cube - 2 * square + t),
        (alpha + 2) * cube - (3 + alpha) * square + 1,
        -(alpha + 2) * cube + (3 + 2 * alpha) * square - alpha * t,
        -alpha * cube + alpha * square,
    )
    return np.concatenate(weights, 1)


def _around(floor: Array, first: int, last: int) -> Array:
    return floor[:, None].astype("int32") + np.arange(first, last + 1, dtype="int32")


def _clamp(index: Array, extent: int) -> Array:
    return np.clip(index, 0, extent - 1).astype("int32")


def _weighted(builder: Any, call: Any, taps: Mapping[int, Taps]) -> Expr:
    """Weighted sums over two axes: at once where that is cheap, else one after the other.

    One after the other takes the sum of both counts of taps, but writes and reads what is between.
    """
    data, dtype, name = call.args[0], str(call.ty.dtype), str(call.op.name).rsplit(".", 1)[-1]
    if prod(tap.count for tap in taps.values()) <= _AT_ONCE:
        return _sums(builder, data, taps, dtype, name)
    extents = [int(extent) for extent in data.ty.shape.values]
    # The axis that grows least is done first: fewer elements for the second.
    first, last = sorted(taps, key=lambda axis: len(taps[axis].index) / extents[axis])
    rows = builder.emit(_sums(builder, data, {first: taps[first]}, "float32", name))
    return _sums(builder, rows, {last: taps[last]}, dtype, name)


def _sums(builder: Any, data: Expr, taps: Mapping[int, Taps], dtype: str, name: str) -> Expr:
    """One kernel that sums the taps of these axes."""
    tables = [
        relax.const(tensor(table), str(table.dtype))
        for tap in taps.values()
        for table in (tap.index, tap.weight)
        if table is not None
    ]
    many = max(tap.count for tap in taps.values()) > _UNROLLED
    kernel = _reduced if many else _unrolled

    def build(x: Tensor, *tables: Tensor) -> Tensor:
        return kernel(x, list(tables), taps, dtype)

    # TVM takes indices from a table for opaque; concatenations may compute this in their stead.
    attributes = None if many else {"op_pattern": _INJECTIVE}
    return builder.call_te(build, data, *tables, primfunc_name_hint=name, primfunc_attrs=attributes)


def _unrolled(x: Tensor, tables: list[Tensor], taps: Mapping[int, Taps], dtype: str) -> Tensor:
    """The taps written out; those that are taken as they are keep their type."""
    paired = _pairs(tables, taps)
    plain = all(tap.weight is None for tap in taps.values())

    def element(*i: Any) -> Any:
        terms: list[Any] = []
        for choice in product(*(range(tap.count) for tap in taps.values())):
            place, factors = list(i), []
            for (axis, (index, *weight)), tap in zip(paired.items(), choice, strict=True):
                place[axis] = _place(index(i[axis], tap))
                factors += [table(i[axis], tap) for table in weight]
            value = x(*place)
            terms.append(value if plain else reduce(mul, factors) * value.astype("float32"))
        return terms[0] if plain else reduce(add, terms).astype(dtype)

    return te.compute(_shape(x, taps), element, name="resampled")


def _reduced(x: Tensor, tables: list[Tensor], taps: Mapping[int, Taps], dtype: str) -> Tensor:
    """The taps of one axis as a reduction."""
    ((axis, (index, *weights)),) = _pairs(tables, taps).items()
    k = te.reduce_axis((tirx.const(0, "int64"), tirx.const(taps[axis].count, "int64")), name="k")

    def element(*i: Any) -> Any:
        place = [*i[:axis], _place(index(i[axis], k)), *i[axis + 1 :]]
        (weight,) = weights
        return te.sum(x(*place).astype("float32") * weight(i[axis], k), axis=k)

    total = te.compute(_shape(x, taps), element, name="resampled")
    return (
        total if dtype == "float32" else te.compute(total.shape, lambda *i: total(*i).astype(dtype))
    )


def _place(index: Any) -> Any:
    """An index in the 64 bits in which the kernels that fuse with this one count."""
    return index.astype("int64")


def _pairs(tables: list[Tensor], taps: Mapping[int, Taps]) -> dict[int, list[Tensor]]:
    """The tensors of each axis: its table of indices and, where it has one, that of weights."""
    left = iter(tables)
    return {
        axis: [next(left) for _ in range(1 if tap.weight is None else 2)]
        for axis, tap in taps.items()
    }


def _shape(x: Tensor, taps: Mapping[int, Taps]) -> list[Any]:
    """The result's shape."""
    return [
        tirx.const(len(taps[axis].index), "int64") if axis in taps else extent
        for axis, extent in enumerate(x.shape)
    ]
