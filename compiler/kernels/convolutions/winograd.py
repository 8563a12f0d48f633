"""Loop nests of 3x3 convolutions of stride 1 by Winograd's minimal filtering."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.convolutions.winograd_transforms import DOUBLED, Matrix, transforms
from hybridc.compiler.kernels.products.contractions import Conv2d, stored
from hybridc.compiler.kernels.products.packing import packed_index, round_up
from hybridc.compiler.kernels.tensor_expressions import (
    computed,
    extents,
    finished,
    pad2d,
    product_of,
    reduced,
    tensor,
)
from hybridc.compiler.model import Array
from hybridc.compiler.strips.cut import LEADING


@dataclass(frozen=True)
class _Grid:
    """The tiles of a batch of images, numbered row by row; each makes `side` x `side` outputs.

    Tiles from `count` up to `rounded` repeat the last one, and nobody reads what they make.  Where
    the number of images is open, `lead` is that number, and tiles are of one image.
    """

    batch: int
    height: int
    width: int
    side: int
    rounded: int
    lead: tuple[Any, ...] = ()

    @property
    def marks(self) -> Mapping[str, Any]:
        """The annotations of blocks that lead by the open number of images."""
        return {LEADING: 1} if self.lead else {}

    @property
    def count(self) -> int:
        return self.batch * self.height * self.width

    def place(self, tile: Any) -> tuple[Any, Any, Any]:
        """Image, and the first row and column of outputs, of a tile."""
        if self.rounded > self.count:
            tile = tirx.Min(tile, tirx.const(self.count - 1, tile.ty.dtype))
        row = tile // self.width % self.height
        return tile // (self.height * self.width), row * self.side, tile % self.width * self.side

    def tile(self, image: Any, row: Any, column: Any) -> Any:
        """The tile that makes an output."""
        return (image * self.height + row // self.side) * self.width + column // self.side


def conv2d(  # noqa: PLR0913, PLR0917 - shape, weights, attributes, tiles, and both types
    shape: tuple[Any, ...],
    packed: Array,
    columns: int,
    conv: Conv2d,
    tiles: int = 0,
    types: tuple[str, str] = ("float32", ""),
) -> PrimFunc:
    """3x3 convolution of x `[N, H, W, C]`; weights `[tile, tile, O / lanes, C, lanes]`.

    N may be open.  In float32, of x and with a result of these `types`; or of uint8 with weights of
    int16, packed by pairs of channels, added up in int32.  Stages: `pixels`, `input_rows` and
    `input_transform` (B^T d B), `product` (one matrix product for each of tile x tile positions),
    `output_rows` and `output_transform` (A^T m A).  Products are made for `tiles` tiles where these
    are more than cover the output, so that a schedule may take them in groups of equal size.
    """
    batch, height, width, channels = shape
    tile, _, blocks, _, lanes = packed.shape[:5]
    integers = packed.dtype == np.int16
    group = packed.shape[-1] if integers else 1
    side = tile - 2
    out_h, out_w = conv.output_size((height, width), (3, 3))
    high, wide = -(-out_h // side), -(-out_w // side)
    lead = () if isinstance(batch, int) else (batch,)
    images = 1 if lead else batch
    grid = _Grid(images, high, wide, side, max(tiles, images * high * wide), lead)
    x = tensor(shape, "x", "uint8" if integers else types[0])
    w = tensor(packed.shape, "weight", packed.dtype.name)
    data = _transform_input(x, conv, grid, group)
    total = "int32" if integers else "float32"
    k = reduced(round_up(channels, group), "k")
    flops = 2 * images * out_h * out_w * columns * channels * 9

    def multiplied(*index: Any) -> Any:
        *n, p, t, o = index
        value = data[*n, p // tile, p % tile, t, k].astype(total)
        place = packed_index((p // tile, p % tile, o // lanes), k, o % lanes, group)
        return te.sum(value * w[place].astype(total), axis=k)

    whole_tiles = (*lead, tile * tile, grid.rounded, blocks * lanes)
    attrs = {**product_of("winograd-conv2d", flops), **grid.marks}
    product = computed(whole_tiles, multiplied, name="product", attrs=attrs)
    products = computed(whole_tiles, lambda *index: product[index], name="stored", attrs=grid.marks)
    whole = _transform_output(products, grid)
    out = _output(whole, grid, (batch, out_h, out_w, columns), types[1])
    return finished([x, w, out])


def _output(whole: Any, grid: _Grid, shape: tuple[Any, ...], dtype: str) -> Any:
    """The outputs where they belong, from what the transforms made of each tile."""

    def result(n: Any, h: Any, v: Any, o: Any) -> Any:
        *image, tile = (n, grid.tile(0, h, v)) if grid.lead else (grid.tile(n, h, v),)
        return stored(_scaled(whole[*image, h % grid.side, v % grid.side, tile, o]), dtype)

    return computed(shape, result, name="output")


def _scaled(value: Any) -> Any:
    """An output from what the transforms made, which of integers is a whole multiple of it."""
    return value >> (DOUBLED**2).bit_length() - 1 if str(value.dtype) == "int32" else value


def _transform_input(x: Any, conv: Conv2d, grid: _Grid, group: int) -> Any:
    """B^T d B of every tile: `[tile, tile, tiles, C]`, channels in whole groups."""
    _, height, width, channels = extents(x)
    top, left, _, _ = conv.padding
    # As many rows and columns behind the image as the last tiles reach.
    below = grid.height * grid.side + 2 - height - top
    right = grid.width * grid.side + 2 - width - left
    whole = round_up(channels, group)
    padded = pad2d(x, (top, left, below, right), (channels, whole), conv.fill)
    _, _, b_t = transforms(grid.side, 3)
    shape = (*grid.lead, grid.side + 2, grid.side + 2, grid.rounded, whole)
    held = "int16" if str(x.dtype) == "uint8" else "float32"

    def pixel(*index: Any) -> Any:
        *n, i, j, t, c = index
        image, row, column = grid.place(t)
        return padded[n[0] if n else image, row + i, column + j, c].astype(held)

    def input_row(*index: Any) -> Any:
        *n, u, j, t, c = index
        return _combination(b_t, u, lambda i: pixels[*n, i, j, t, c])

    def transformed(*index: Any) -> Any:
        *n, u, v, t, c = index
        return _combination(b_t, v, lambda j: rows[*n, u, j, t, c])

    # Placed once for each pixel, not once for each term of the sums.
    pixels = computed(shape, pixel, name="pixels", attrs=grid.marks)
    rows = computed(shape, input_row, name="input_rows", attrs=grid.marks)
    return computed(shape, transformed, name="input_transform", attrs=grid.marks)


def _transform_output(products: Any, grid: _Grid) -> Any:
    """A^T m A of every tile: `[side, side, tiles, O]`."""
    columns, tile = int(products.shape[-1]), grid.side + 2
    a_t, _, _ = transforms(grid.side, 3)

    def output_row(*index: Any) -> Any:
        *n, r, v, t, o = index
        return _combination(a_t, r, lambda u: products[*n, u * tile + v, t, o])

    def transformed(*index: Any) -> Any:
        *n, r, s, t, o = index
        return _combination(a_t, s, lambda v: rows[*n, r, v, t, o])

    rows = computed(
        (*grid.lead, grid.side, tile, grid.rounded, columns),
        output_row,
        name="output_rows",
        attrs=grid.marks,
    )
    shape = (*grid.lead, grid.side, grid.side, grid.rounded, columns)
    return computed(shape, transformed, name="output_transform", attrs=grid.marks)


def _combination(matrix: Matrix, row: Any, value: Callable[[int], Any]) -> Any:
    """`sum_j matrix[row, j] * value(j)`, to be folded when the loop over `row` is unrolled."""
    choices = _combinations(matrix, value)
    chosen = choices[-1]
    for i in reversed(range(len(choices) - 1)):
        chosen = tirx.Select(row == i, choices[i], chosen)
    return chosen


def _combinations(matrix: Matrix, value: Callable[[int], Any]) -> list[Any]:
    """All rows of `matrix` times the values.

    The points p and -p give rows of B^T, and columns of A^T, that differ in signs alone.  Their
    sums are written so that code generation finds the half that both share and computes it once.
    """
    rows, columns = _paired(matrix), _paired(matrix.T)
    choices: list[Any] = []
    for i, row in enumerate(matrix):
        if columns:
            choices.append(_sum(_merged(row, columns, value)))
            continue
        mate = next((pair for pair in rows if i in pair), None)
        if mate is None:
            choices.append(_sum([(entry, value(j)) for j, entry in enumerate(row)]))
            continue
        first, second = (matrix[k] for k in mate)
        same = _sum([(e, value(j)) for j, e in enumerate(first) if e == second[j]])
        other = _sum([(e, value(j)) for j, e in enumerate(first) if e != second[j]])
        choices.append(same + other if i == mate[0] else same - other)
    return choices


def _paired(matrix: Matrix) -> list[tuple[int, int]]:
    """Neighbouring rows that agree in some columns and differ in the sign of others."""
    pairs = []
    for i in range(1, len(matrix) - 1, 2):
        first, second = matrix[i], matrix[i + 1]
        same = np.any((first == second) & (first != 0)) and np.any(first != second)
        if same and np.array_equal(np.abs(first), np.abs(second)):
            pairs.append((i, i + 1))
    return pairs


def _merged(
    row: Matrix, pairs: list[tuple[int, int]], value: Callable[[int], Any]
) -> list[tuple[float, Any]]:
    """The terms of one row, each pair of columns as the sum or the difference of its values."""
    merged: list[tuple[float, Any]] = []
    seconds = {j for _, j in pairs}
    firsts = dict(pairs)
    for j, entry in enumerate(row):
        if j in firsts:
            mate = firsts[j]
            both = value(j) + value(mate) if row[mate] == entry else value(j) - value(mate)
            merged.append((entry, both))
        elif j not in seconds:
            merged.append((entry, value(j)))
    return merged


def _sum(terms: list[tuple[float, Any]]) -> Any:
    """`sum entry * value`, without the entries that are zero; the first is positive if any is."""
    total: Any = None
    for entry, value in sorted(terms, key=lambda term: term[0] <= 0):
        if entry == 0:
            continue
        # Those of integers have no other entries than 1 and -1.
        term = value if abs(entry) == 1 else value * tirx.const(abs(entry), "float32")
        if total is None:
            total = term if entry > 0 else -term
        else:
            total = total + term if entry > 0 else total - term
    return total
