"""How long the strips of a kernel are: long enough for whole tiles, and short ones for few places.

A product reads all of its weights for each strip, so that these have many rows; what is computed
image by image, or head by head, fills the machine with one place.  Elsewhere a strip is about what
fits the L1 cache.
"""

from collections.abc import Sequence
from itertools import product
from math import prod
from typing import Any

from tvm import tirx
from tvm.s_tir import SBlock
from tvm_ffi import structural_walk

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.attention.attention_form import is_attention
from hybridc.compiler.kernels.products import (
    grouped_bytes,
    grouped_weights,
    ungrouped_weights,
    weight_only,
)
from hybridc.compiler.kernels.tensor_expressions import KERNEL
from hybridc.compiler.strips.axes import Axis, buffers_of, nests

# Rows of a product with weights.  64 rows read each weight once for 64 multiply-adds, which is
# beyond what any cache needs; four rows are one register tile, and one is a vector by a matrix.
_ROWS = (64, 16, 4, 1)
# Rows and columns of a product of two activations: one register tile, and what is left.
_TILE_ROWS, _TILE_COLUMNS = (4, 1), (16, 4, 1)
# Elements of a strip of anything else: 16 KiB of float32, half of the smallest L1 cache.
_ELEMENTS = 4096
_LONGEST = 1024
# Products of rows with weights.
_WEIGHTS = ("dense", weight_only.KIND, grouped_weights.KIND, grouped_bytes.KIND)
# Kernels that are whole for one place of an open axis.
_WHOLE = ("conv2d", "depthwise-conv2d", "winograd-conv2d")


def kind_of(func: PrimFunc) -> str:
    """What product a kernel holds, by the name that it was given; empty for none."""
    found: list[str] = []

    def visit(block: Any) -> None:
        if KERNEL in block.annotations:
            found.append(str(block.annotations[KERNEL]))

    structural_walk(func.body, (SBlock, visit))
    return found[0] if found else ""


def has_weights(func: PrimFunc) -> bool:
    """Whether a kernel is a product of rows, or of windows, with weights."""
    return kind_of(func) in (*_WEIGHTS, *_WHOLE) and not is_attention(func)


def sizes(func: PrimFunc, axes: Sequence[Axis]) -> list[tuple[int, ...]]:
    """The strips to make, larger ones first; along each axis the last has one place."""
    kind = kind_of(func)
    single = [(1,)] * (len(axes) - 1)
    if is_attention(func):
        return [(1,) * len(axes)]
    if kind in _WHOLE:
        last = axes[-1]
        pixels = (1,) if not last.windows else _ROWS if _is_row(func, last) else _lines(func, last)
        return list(product(*single, pixels))
    if kind in _WEIGHTS:
        return list(product(*single, (1,) if _fixed_rows(func, axes) else _ROWS))
    if kind == "matmul":
        return list(product(*_matrix(func, axes)))
    return list(product(*single, _by_elements(func, axes[-1], _stays_open(func, axes))))


def form(func: PrimFunc, lengths: Sequence[int]) -> PrimFunc:
    """The kernel as strips of these lengths compute it."""
    if kind_of(func) != grouped_weights.KIND:
        return func
    rows = prod(lengths) * _rows(func)
    return func if grouped_weights.fits(rows) else ungrouped_weights.ungrouped(func)


def dropped(func: PrimFunc, axes: Sequence[Axis], lengths: Sequence[int]) -> list[int]:
    """Axes of single places that the rules for products of this kind do not expect."""
    if kind_of(func) == "winograd-conv2d":
        return list(range(len(axes)))
    if kind_of(func) not in (*_WEIGHTS, "matmul"):
        return []
    kept: set[int] = set()
    if kind_of(func) == "matmul":
        kept = set(_matrix_axes(func, axes))
    elif not _fixed_rows(func, axes):
        kept = {len(axes) - 1}
    return [i for i, length in enumerate(lengths) if length == 1 and i not in kept]


def _by_elements(func: PrimFunc, axis: Axis, stays_open: bool) -> tuple[int, ...]:
    """Strips of about as many elements as fit the cache, along one axis.

    One place where another axis stays open, so that nobody knows how many elements that is.
    """
    written = [b for b in buffers_of(func) if axis.of(b) is not None][-1]
    if stays_open:
        return (1,)
    inner = prod(int(e) for e in written.shape if isinstance(e, tirx.IntImm))
    length = 1
    while 2 * length * max(1, inner) <= _ELEMENTS and 2 * length <= _LONGEST:
        length *= 2
    shorter = (length, length // 16) if length > 16 else (length,)
    return tuple(dict.fromkeys((*shorter, 1)))


def _is_row(func: PrimFunc, axis: Axis) -> bool:
    """Whether an axis of a convolution counts the pixels of an image row."""
    return axis.runs(_kept(func)[2])


def _lines(func: PrimFunc, axis: Axis) -> tuple[int, ...]:
    """Strips of some image rows, as many as make up a strip of pixels."""
    row = _numbering(func)[2].dom.extent
    length = 1
    while isinstance(row, tirx.IntImm) and 2 * length * int(row) <= _ROWS[0]:
        length *= 2
    return tuple(dict.fromkeys((length, 1)))


def _stays_open(func: PrimFunc, axes: Sequence[Axis]) -> bool:
    """Whether a size is open that no strip makes fixed."""
    return any(
        not isinstance(extent, tirx.IntImm) and not any(axis.of(buffer) == i for axis in axes)
        for buffer in buffers_of(func)
        for i, extent in enumerate(buffer.shape)
    )


def _matrix(func: PrimFunc, axes: Sequence[Axis]) -> list[tuple[int, ...]]:
    """Tiles of rows and columns where these are open; one place of any other axis."""
    rows, columns = _matrix_axes(func, axes)
    return [
        _TILE_ROWS if i == rows else _TILE_COLUMNS if i == columns else (1,)
        for i in range(len(axes))
    ]


def _matrix_axes(func: PrimFunc, axes: Sequence[Axis]) -> tuple[int, int]:
    """Which axes are rows and columns of the product, the last two that it keeps; -1 for none."""
    found = [next((i for i, a in enumerate(axes) if a.runs(v)), -1) for v in _kept(func)[-2:]]
    return found[0], found[1]


def _fixed_rows(func: PrimFunc, axes: Sequence[Axis]) -> bool:
    """Whether a product with weights has rows besides those of open axes."""
    return any(not any(axis.runs(var) for axis in axes) for var in _kept(func)[:-1])


def _kept(func: PrimFunc) -> list[Any]:
    """The variables that number the elements of a product."""
    return [axis.var for axis in _numbering(func)]


def _rows(func: PrimFunc) -> int:
    """Rows of a product with weights for each place of its open axes."""
    extents = [axis.dom.extent for axis in _numbering(func)[:-1]]
    return prod(int(extent) for extent in extents if isinstance(extent, tirx.IntImm))


def _numbering(func: PrimFunc) -> list[Any]:
    nest = next(n for n in nests(func) or () if KERNEL in n.node.annotations)
    return [a for a in nest.node.iter_vars if int(a.iter_type) == tirx.IterVar.DataPar]
