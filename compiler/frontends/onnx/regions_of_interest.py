"""RoiAlign: regions of images, sampled on a grid.

TVM takes half a pixel off before it scales the regions, and its maxima are of something else.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from hybridc.compiler.errors import UnsupportedError
from hybridc.compiler.frontends.onnx.node import Converter, Expr, Node, Scope, dtype
from hybridc.compiler.ir.rewrite import are_known, constant

_PIXELS_SINCE = 16  # the opset since when regions lie half a pixel off by default


@dataclass(frozen=True)
class _Axis:
    """Samples along an axis: the pixels before and behind, and their weights, `[regions, n]`."""

    low: Expr
    high: Expr
    before: Expr
    behind: Expr


def _roi_align(node: Node) -> Expr:
    """The average of a cell's samples, or the largest, which is of each pixel times its weight."""
    mode, density = node.get("mode", "avg"), int(node.get("sampling_ratio", 0))
    if density > 0 and are_known(node.shape()[2:]):
        return _sampled(node, density, largest=mode == "max")
    if mode == "max":
        raise UnsupportedError("mode=max and as many samples, or pixels, as only the data tell")
    return _averaged(node, density)


def _averaged(node: Node, density: int) -> Expr:
    """Averages of as many samples as a region has pixels: TVM's, of regions that have some.

    Of a region without extent, or turned round, they are 0; TVM leaves what was in memory.
    """
    s, kind = node.scope, dtype(node.inputs[1])
    rois, centred = _regions(node)
    images = s.astype(s.expand_dims(node.inputs[2], axis=[1]), kind)
    averages = s.vision.roi_align(
        node.inputs[0],
        s.concat([images, rois], axis=1),
        pooled_size=_cells(node),
        spatial_scale=1.0,
        sample_ratio=density,
        aligned=centred,
        layout="NCHW",
        mode="avg",
    )
    if not centred:  # such are taken for one pixel
        return averages
    left, top, right, bottom = (s.strided_slice(rois, [1], [i], [i + 1]) for i in range(4))
    inside = s.logical_and(s.greater(right, left), s.greater(bottom, top))
    inside = s.reshape(inside, [node.shape(1)[0], 1, 1, 1])
    return s.where(inside, averages, constant(np.zeros(()), dtype(averages)))


def _sampled(node: Node, density: int, largest: bool) -> Expr:
    """Each cell of `density` times as many samples."""
    s, kind = node.scope, dtype(node.inputs[0])
    x = s.as_type(node.inputs[0], "float32")
    batch, channels, *image = node.shape()
    count, cells = node.shape(1)[0], _cells(node)
    rows, columns = (_axis(node, i, image[i], cells[i], density) for i in range(2))
    pixels = s.reshape(s.permute_dims(x, [0, 2, 3, 1]), [batch * image[0] * image[1], channels])
    first = s.multiply(s.astype(node.inputs[2], "int64"), image[0] * image[1])
    first = s.reshape(first, [count, 1, 1])

    def corner(y: Expr, wy: Expr, x: Expr, wx: Expr) -> Expr:
        row = s.add(s.multiply(s.expand_dims(y, axis=[2]), image[1]), first)
        taken = s.take(pixels, s.add(row, s.expand_dims(x, axis=[1])), axis=0)
        weight = s.multiply(s.expand_dims(wy, axis=[2]), s.expand_dims(wx, axis=[1]))
        return s.multiply(taken, s.expand_dims(weight, axis=[3]))

    upper, lower = ((rows.low, rows.before), (rows.high, rows.behind))
    left, right = ((columns.low, columns.before), (columns.high, columns.behind))
    joined, pooled = (s.maximum, s.max) if largest else (s.add, s.mean)
    samples = corner(*upper, *left)
    for vertical, horizontal in ((upper, right), (lower, left), (lower, right)):
        samples = joined(samples, corner(*vertical, *horizontal))
    grid = [count, cells[0], density, cells[1], density, channels]
    found = pooled(s.reshape(samples, grid), axis=[2, 4])
    return s.as_type(s.permute_dims(found, [0, 3, 1, 2]), kind)


def _cells(node: Node) -> list[int]:
    return [int(node.get(f"output_{name}", 1)) for name in ("height", "width")]


def _regions(node: Node) -> tuple[Expr, bool]:
    """The regions in pixels, and whether pixels are where their middles are."""
    s, usual = node.scope, "half_pixel" if node.opset >= _PIXELS_SINCE else "output_half_pixel"
    centred = node.get("coordinate_transformation_mode", usual) == "half_pixel"
    scaled = s.multiply(node.inputs[1], float(node.get("spatial_scale", 1.0)))
    return (s.subtract(scaled, 0.5) if centred else scaled), centred


def _axis(node: Node, axis: int, extent: int, cells: int, density: int) -> _Axis:
    """Samples in the middle of equal parts of each cell; beyond the image they weigh nothing."""
    s: Scope = node.scope
    rois, centred = _regions(node)
    rois = s.as_type(rois, "float32")
    start, end = (s.strided_slice(rois, [1], [i], [i + 1]) for i in (1 - axis, 3 - axis))
    size = s.subtract(end, start)
    size = size if centred else s.maximum(size, constant(np.ones(()), "float32"))
    steps = (np.arange(cells * density) + 0.5) / (cells * density)
    place = s.add(start, s.multiply(size, steps[None]))
    inside = s.logical_and(s.greater_equal(place, -1.0), s.less_equal(place, float(extent)))
    place = s.minimum(s.maximum(place, 0.0), float(extent - 1))
    floor = s.floor(place)
    share = s.subtract(place, floor)
    weighs = s.astype(inside, "float32")
    low = s.astype(floor, "int64")
    return _Axis(
        low=low,
        high=s.minimum(s.add(low, 1), constant(np.array(extent - 1), "int64")),
        before=s.multiply(weighs, s.subtract(constant(np.ones(()), "float32"), share)),
        behind=s.multiply(weighs, share),
    )


CONVERTERS: Mapping[str, Converter] = MappingProxyType({"RoiAlign": _roi_align})
