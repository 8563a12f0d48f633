"""What the loop nests of contractions and convolutions share, above TVM's tensor expressions.

Extents are 64-bit: Relax counts in 64 bits, and a kernel that counted in 32 would not fuse with
the others.  Code generation narrows them again.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tvm import te, tirx

from hybridc.compiler.interfaces import PrimFunc

# The block annotation by which a schedule rule recognises its kernel.
KERNEL = "hybridc.kernel"
# The block annotation that tells the multiplications and additions asked for.
FLOPS = "hybridc.flops"
# TVM's OpPatternKind: an output-elementwise-fusable kernel takes elementwise followers in.
_OUT_ELEMENTWISE_FUSABLE = 4


def tensor(shape: Sequence[int], name: str, dtype: str) -> Any:
    """A parameter of the loop nest."""
    return te.placeholder(_wide(shape), name=name, dtype=dtype)


def reduced(extent: int, name: str) -> Any:
    """An axis that is summed over."""
    return te.reduce_axis((tirx.const(0, "int64"), tirx.const(extent, "int64")), name=name)


def computed(shape: Sequence[int], element: Any, **keywords: Any) -> Any:
    """A tensor of `shape` whose elements `element(*index)` computes: one block."""
    return te.compute(_wide(shape), element, **keywords)


def product_of(kernel: str, flops: int) -> Mapping[str, Any]:
    """The annotations of a kernel's multiply-add block."""
    return {KERNEL: kernel, FLOPS: flops}


def pad2d(
    x: Any, padding: tuple[int, int, int, int], channels: tuple[int, int] = (1, 1), fill: int = 0
) -> Any:
    """Surround x `[N, H, W, C]` by `fill`: top, left, bottom, right; negative ones cut off.

    `channels` of a group and how many of them to make: `fill` follows each group's last one.
    """
    top, left, bottom, right = padding
    given, wanted = channels
    if not any(padding) and given == wanted:
        return x
    batch, height, width, depth = (int(extent) for extent in x.shape)

    def element(n: Any, h: Any, v: Any, c: Any) -> Any:
        bounds = [h >= top, h < height + top, v >= left, v < width + left]
        if given != wanted:
            bounds.append(c % wanted < given)
            c = c // wanted * given + c % wanted if given < depth else c
        inside = tirx.all(*bounds)
        return tirx.if_then_else(inside, x[n, h - top, v - left, c], tirx.const(fill, x.dtype))

    size = (height + top + bottom, width + left + right)
    return computed((batch, *size, depth // given * wanted), element, name="pad")


def finished(tensors: list[Any]) -> PrimFunc:
    """The function of parameters and result, which fusion may extend by an epilogue."""
    func = te.create_prim_func(tensors).without_attr("global_symbol")
    return func.with_attr("op_pattern", _OUT_ELEMENTWISE_FUSABLE)


def flatten(index: Sequence[Any], shape: Sequence[int]) -> Any:
    """Which element of a tensor of `shape` an index is, counted row by row."""
    flat: Any = 0
    for i, extent in zip(index, shape, strict=True):
        flat = flat * extent + i
    return flat


def unflatten(flat: Any, shape: Sequence[int]) -> list[Any]:
    """The index of element `flat`; axes of extent 1 stay out of the arithmetic."""
    index: list[Any] = []
    for axis in reversed(range(len(shape))):
        outermost = all(extent == 1 for extent in shape[:axis])
        index.append(flat if outermost and shape[axis] != 1 else flat % shape[axis])
        flat = flat // shape[axis]
    return index[::-1]


def _wide(shape: Sequence[int]) -> tuple[Any, ...]:
    return tuple(tirx.const(int(extent), "int64") for extent in shape)
