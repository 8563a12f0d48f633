"""What the loop nests of contractions and convolutions share, above TVM's tensor expressions.

Extents are 64-bit: Relax counts in 64 bits, and a kernel that counted in 32 would not fuse with
the others.  Code generation narrows them again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from tvm import te, tirx
from tvm.s_tir import SBlock
from tvm_ffi import structural_walk

from hybridc.compiler.interfaces import PrimFunc

# The block annotation by which a schedule rule recognises its kernel.
KERNEL = "hybridc.kernel"
# The block annotation that tells the multiplications and additions asked for.
FLOPS = "hybridc.flops"
# The function attribute of a kernel whose loops, vectors and threads are written out.
_WRITTEN = "hybridc.written"
# TVM's OpPatternKind: an output-elementwise-fusable kernel takes elementwise followers in.
_OUT_ELEMENTWISE_FUSABLE = 4


def tensor(shape: Sequence[int], name: str, dtype: str) -> Any:
    """A parameter of the loop nest."""
    return te.placeholder(_wide(shape), name=name, dtype=dtype)


def reduced(extent: Any, name: str) -> Any:
    """An axis that is summed over."""
    return te.reduce_axis((tirx.const(0, "int64"), *_wide([extent])), name=name)


def computed(shape: Sequence[int], element: Any, **keywords: Any) -> Any:
    """A tensor of `shape` whose elements `element(*index)` computes: one block."""
    return te.compute(_wide(shape), element, **keywords)


def product_of(kernel: str, flops: Any) -> Mapping[str, Any]:
    """The annotations of a kernel's multiply-add block."""
    return {KERNEL: kernel, FLOPS: flops}


def counted(*sizes: Any) -> int:
    """The product of sizes, open ones left out: what is counted is of one place of each."""
    return prod(int(size) for size in sizes if isinstance(size, int | tirx.IntImm))


def extents(x: Any) -> tuple[Any, ...]:
    """The shape of a tensor as numbers, and as expressions where it is open."""
    return tuple(int(e) if isinstance(e, tirx.IntImm) else e for e in x.shape)


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
    batch, height, width, depth = extents(x)

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


def written(tensors: list[Any]) -> PrimFunc:
    """The function of parameters and results, whose loops are written out."""
    func = te.create_prim_func(tensors).without_attr("global_symbol")
    return func.with_attr(_WRITTEN, 1)


def is_written(func: PrimFunc) -> bool:
    """Whether a kernel's loops, vectors and threads are written out, and nothing joined it."""
    return _WRITTEN in func.attrs


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


@dataclass(frozen=True)
class RowForm:
    """How the leading axes of a product number its rows: open ones each, the others as one."""

    shape: tuple[Any, ...]

    @property
    def _fixed(self) -> tuple[int, ...]:
        return tuple(size for size in self.shape if isinstance(size, int))

    @property
    def axes(self) -> tuple[Any, ...]:
        """The extents of the product's axes of rows."""
        opened = tuple(size for size in self.shape if not isinstance(size, int))
        rows = prod(self._fixed)
        return opened if opened and rows == 1 else (*opened, rows)

    def place(self, row: Sequence[Any]) -> list[Any]:
        """The index of the operand's leading axes, for a row."""
        count = len(self.shape) - len(self._fixed)
        opened = iter(row[:count])
        rest = unflatten(row[count], self._fixed) if len(row) > count else [0] * len(self._fixed)
        inner = iter(rest)
        return [next(inner if isinstance(size, int) else opened) for size in self.shape]

    def row(self, index: Sequence[Any]) -> list[Any]:
        """The row of an index of the leading axes."""
        pairs = list(zip(self.shape, index, strict=True))
        opened = [i for size, i in pairs if not isinstance(size, int)]
        if opened and prod(self._fixed) == 1:
            return opened
        return [*opened, flatten([i for size, i in pairs if isinstance(size, int)], self._fixed)]


def _wide(shape: Sequence[int]) -> tuple[Any, ...]:
    return tuple(
        tirx.const(int(e), "int64") if isinstance(e, int | tirx.IntImm) else e for e in shape
    )


def kinds_in(func: PrimFunc) -> list[str]:
    """The kind of product that each block of a kernel is; empty for one that is none."""
    found: list[str] = []
    structural_walk(
        func.body, (SBlock, lambda block: found.append(str(block.annotations.get(KERNEL, ""))))
    )
    return found
