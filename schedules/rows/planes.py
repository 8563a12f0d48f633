"""What is known of a depthwise convolution of planes: its window, and the rows that it reads."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from hybridc.compiler.interfaces import Match
from hybridc.compiler.kernels.convolutions.depthwise_planes import WINDOW
from hybridc.schedules.loops.analysis import Block


@dataclass(frozen=True)
class Planes(Match):
    """The `product` of a depthwise convolution, and the elementwise block `output` behind it."""

    product: Block
    output: Block
    threads: bool

    @cached_property
    def window(self) -> tuple[int, ...]:
        """Strides, dilation, and padding at top and left."""
        return tuple(int(number) for number in self.product.node.annotations[WINDOW])

    @cached_property
    def kernel(self) -> tuple[int, int]:
        """Rows and columns of the window."""
        height, width = self.product.reduction.values()
        return height, width

    @property
    def taps(self) -> int:
        """Elements of the window."""
        return self.kernel[0] * self.kernel[1]

    @cached_property
    def planes(self) -> tuple[int, int]:
        """Images and channels of the output."""
        batch, channels, _, _ = self.product.spatial.values()
        return batch, channels

    @property
    def results(self) -> int:
        """Channels of the output for each of the image."""
        return self.planes[1] // int(self.operands[0].shape[1])

    @cached_property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the output."""
        _, _, height, width = self.product.spatial.values()
        return height, width

    @property
    def lanes(self) -> int:
        """The lanes of a vector."""
        return self.target.lanes()

    @property
    def vectors(self) -> int:
        """Vectors of a row of the output, of which the last may overlap that before it."""
        return -(-self.size[1] // self.lanes)

    def lines(self, rows: int) -> int:
        """Rows of the image that a tile of so many rows of the output reads."""
        stride, _, dilation, *_ = self.window
        taps = range(self.kernel[0])
        return len({row * stride + tap * dilation for row in range(rows) for tap in taps})

    @cached_property
    def operands(self) -> tuple[Any, Any]:
        """The image and the weights."""
        ranks = {len(load.source.shape): load.source for load in self.product.loads}
        return ranks[4], ranks[3]


@dataclass(frozen=True)
class Row:
    """A row of the band: of each phase `before` elements, then the image's `columns`, then more.

    An image's column is `column * stride + phase`.
    """

    before: int
    columns: int
    length: int
    stride: int
    width: int

    @classmethod
    def of(cls, planes: Planes) -> "Row":
        """The row that the windows of a row of the output read."""
        stride, dilation, left = (planes.window[i] for i in (1, 3, 5))
        width = int(planes.operands[0].shape[3])
        lanes, reach = planes.lanes, dilation * (planes.kernel[1] - 1) - left
        before = -(-left // stride)
        before = -(-before // lanes) * lanes
        columns = -(-width // stride)
        read = max(planes.size[1], lanes) + max(0, reach // stride)
        length = -(-(before + max(columns, read)) // lanes) * lanes
        return cls(before, columns, length, stride, width)

    @property
    def size(self) -> int:
        """The elements of all phases."""
        return self.length * self.stride

    def count(self, phase: int) -> int:
        """The image's columns of a phase."""
        return len(range(phase, self.width, self.stride))

    def place(self, column: int) -> int:
        """Where a column of the image lies, counted from the first; negative ones lie before it."""
        return column % self.stride * self.length + self.before + column // self.stride
