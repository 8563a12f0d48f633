"""Sampling of images and volumes at places that a grid gives."""

import itertools
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import torch

from hybridc.compiler.frontends import sampled_images
from hybridc.compiler.frontends.aten.call import Call, Converter
from hybridc.compiler.frontends.onnx.node import Expr

Tensor = Any  # torch.Tensor

_BILINEAR, _NEAREST = 0, 1
_ZEROS, _BORDER = 0, 1  # the third is reflection


def _grid_sampler_3d(
    input: Tensor,  # noqa: A002 - torch's name
    grid: Tensor,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> Tensor:
    """`[n, c, d, h, w]` at `[n, ..., 3]`, x first, from -1 to 1 over each axis."""
    extents = input.shape[2:]
    places = [
        _place(grid[..., 2 - axis], extent, padding_mode, align_corners)
        for axis, extent in enumerate(extents)
    ]
    if interpolation_mode == _NEAREST:
        return _taken(input, [torch.round(place) for place in places])
    lower = [torch.floor(place) for place in places]
    total = torch.zeros_like(_taken(input, lower))
    for corner in itertools.product((0, 1), repeat=3):
        weight = torch.ones_like(places[0])
        for place, low, up in zip(places, lower, corner, strict=True):
            weight = weight * ((place - low) if up else (low + 1 - place))
        found = _taken(input, [low + up for low, up in zip(lower, corner, strict=True)])
        total = total + found * weight.unsqueeze(1)
    return total


def _place(x: Tensor, extent: int, padding: int, corners: bool) -> Tensor:
    """From -1 to 1 to places of elements, moved inside as the padding says."""
    place = (x + 1) / 2 * (extent - 1) if corners else ((x + 1) * extent - 1) / 2
    if padding == _ZEROS:
        return place
    if padding != _BORDER:
        place = _reflected(place, extent, corners)
    return torch.clamp(place, 0, extent - 1)


def _reflected(place: Tensor, extent: int, corners: bool) -> Tensor:
    low, high = (0.0, extent - 1.0) if corners else (-0.5, extent - 0.5)
    span = high - low
    if span == 0:
        return torch.zeros_like(place)
    distance = (place - low).abs()
    turns = torch.floor(distance / span)
    rest = distance - turns * span
    even = turns - 2 * torch.floor(turns / 2) == 0
    return torch.where(even, rest + low, span - rest + low)


def _taken(x: Tensor, places: list[Tensor]) -> Tensor:
    """The elements at whole places, 0 outside."""
    batch, channels, *extents = x.shape
    inside = torch.ones_like(places[0], dtype=torch.bool)
    flat = torch.zeros_like(places[0], dtype=torch.int64)
    for place, extent in zip(places, extents, strict=True):
        inside = inside & (place >= 0) & (place < extent)
        flat = flat * extent + torch.clamp(place, 0, extent - 1).to(torch.int64)
    rows = flat.reshape(batch, 1, -1).expand(batch, channels, flat[0].numel())
    found = x.reshape(batch, channels, -1).gather(2, rows)
    shape = (batch, channels, *places[0].shape[1:])
    return torch.where(inside.unsqueeze(1), found.reshape(shape), 0.0)


def _grid_sampler_2d(c: Call) -> Expr:
    x, grid = c["input"], c["grid"]
    shapes = (c.shape("input"), c.shape("grid"))
    size = (shapes[0][2], shapes[0][3])
    padding = "border" if c["padding_mode"] == _BORDER else "zeros"
    form = sampled_images.Grid(size, bool(c["align_corners"]), padding, spreads_nan=True)
    return sampled_images.sampled(c.scope, x, grid, shapes, form)


def _is_linear(
    input: Tensor,  # noqa: A002 - torch's name
    grid: Tensor,
    interpolation_mode: int,
    padding_mode: int,
    align_corners: bool,
) -> bool:
    """Whether a grid's sampling is converted whole."""
    del align_corners
    linear = interpolation_mode == _BILINEAR and padding_mode in (_ZEROS, _BORDER)
    return linear and input.dtype == grid.dtype == torch.float32


CONVERTERS: Mapping[str, Converter] = MappingProxyType(
    {"grid_sampler_2d.default": _grid_sampler_2d}
)
# When a converter takes a call; others are written out.
CONVERTED_WHERE: Mapping[str, Callable[..., bool]] = MappingProxyType(
    {"grid_sampler_2d.default": _is_linear}
)
DECOMPOSITIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"grid_sampler_3d.default": _grid_sampler_3d}
)
