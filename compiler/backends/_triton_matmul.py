"""A matrix product with its epilogue in Triton; imported where Triton is installed."""

from typing import Any

import torch
import triton  # pyright: ignore[reportMissingImports]
import triton.language as tl  # pyright: ignore[reportMissingImports]

# Triton reads the annotations of its kernels, and makes of a function what is called by a grid.
# pyright: reportMissingParameterType=false, reportIndexIssue=false

# Tiles of the product, warps and stages: a large one, and two for few rows or few columns.
_TILES = ((128, 128, 32, 4, 4), (128, 64, 32, 4, 4), (32, 64, 64, 4, 3), (64, 256, 32, 8, 3))
_GROUP = 8  # tiles of rows that follow each other, so that their columns stay in the L2 cache


@triton.jit
def _kernel(  # noqa: PLR0913, PLR0917 - Triton's form
    left,
    right,
    bias,
    result,
    rows,
    columns,
    depth,
    biased: tl.constexpr,
    relu: tl.constexpr,
    ieee: tl.constexpr,
    tile_m: tl.constexpr,
    tile_n: tl.constexpr,
    tile_k: tl.constexpr,
    group: tl.constexpr,
):
    program = tl.program_id(0)
    across, down = tl.cdiv(columns, tile_n), tl.cdiv(rows, tile_m)
    first = program // (group * across) * group
    height = min(down - first, group)
    inside = program % (group * across)
    at_m, at_n = first + inside % height, inside // height
    m = at_m * tile_m + tl.arange(0, tile_m)
    n = at_n * tile_n + tl.arange(0, tile_n)
    k = tl.arange(0, tile_k)
    sums = tl.zeros((tile_m, tile_n), dtype=tl.float32)
    for start in range(0, depth, tile_k):
        here = start + k
        a = tl.load(
            left + m[:, None] * depth + here[None, :],
            mask=(m[:, None] < rows) & (here[None, :] < depth),
            other=0.0,
        )
        b = tl.load(
            right + here[:, None] * columns + n[None, :],
            mask=(here[:, None] < depth) & (n[None, :] < columns),
            other=0.0,
        )
        sums = tl.dot(a, b, sums, input_precision="ieee" if ieee else "tf32")
    if biased:
        sums += tl.load(bias + n, mask=n < columns, other=0.0)[None, :].to(tl.float32)
    if relu:
        sums = tl.maximum(sums, 0.0)
    place = result + m[:, None] * columns + n[None, :]
    tl.store(
        place,
        sums.to(result.dtype.element_ty),
        mask=(m[:, None] < rows) & (n[None, :] < columns),
    )


def multiply(left: Any, right: Any, bias: Any, result: Any, relu: bool) -> None:
    """`result = left @ right + bias`, all contiguous, of rank 2; bias may be None."""
    rows, depth = left.shape
    columns = right.shape[1]
    m, n, k, warps, stages = _tile(rows, columns)
    grid = (triton.cdiv(rows, m) * triton.cdiv(columns, n),)
    _kernel[grid](
        left,
        right,
        left if bias is None else bias,
        result,
        rows,
        columns,
        depth,
        biased=bias is not None,
        relu=relu,
        ieee=left.dtype is torch.float32,
        tile_m=m,
        tile_n=n,
        tile_k=k,
        group=_GROUP,
        num_warps=warps,
        num_stages=stages,
    )


def _tile(rows: int, columns: int) -> tuple[int, int, int, int, int]:
    """The tile that wastes least of its threads, the first of those."""
    return min(
        _TILES, key=lambda tile: -(-rows // tile[0]) * tile[0] * -(-columns // tile[1]) * tile[1]
    )
