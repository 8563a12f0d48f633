"""Windows of convolutions, which read neighbouring places of an axis that they stand along."""

from dataclasses import dataclass
from typing import Any

from tvm import sym, tirx

from hybridc.compiler.kernels.tensor_expressions import KERNEL

Expr = Any  # tvm.ir.Expr
Buffer = Any  # a variable of tvm.tirx.buffer.BufferType
# Kernels that read images by windows.
_KINDS = ("conv2d", "depthwise-conv2d")


@dataclass(frozen=True)
class Window:
    """How a convolution reads a dimension: place n reads `reach` elements from `n * stride` on."""

    buffer: Buffer
    dimension: int
    stride: int
    reach: int

    def places(self, count: int) -> int:
        """The elements that so many neighbouring places read."""
        return (count - 1) * self.stride + self.reach


def window_along(block: Any, index: Expr) -> tuple[Any, int, int] | None:
    """The open axis of a block that windows stand along, by an index, their stride and reach."""
    if str(block.annotations.get(KERNEL, "")) not in _KINDS:
        return None
    axes = list(block.iter_vars)
    found = sym.detect_linear_equation(index, [axis.var for axis in axes])
    if not found or not all(_is_number(factor) for factor in found) or int(found[-1]):
        return None
    used = [(axis, int(by)) for axis, by in zip(axes, found[:-1], strict=True) if int(by)]
    kept = [(a, by) for a, by in used if int(a.iter_type) == tirx.IterVar.DataPar]
    taps = [(a, by) for a, by in used if int(a.iter_type) != tirx.IterVar.DataPar]
    if len(kept) != 1 or not all(_is_number(a.dom.extent) for a, _ in taps):
        return None
    if _is_number(kept[0][0].dom.extent) or any(by < 0 for _, by in used):
        return None
    return *kept[0], 1 + sum(by * (int(a.dom.extent) - 1) for a, by in taps)


def _is_number(extent: Expr) -> bool:
    return isinstance(extent, int | tirx.IntImm)
