"""What a Winograd convolution computes, and how it may be cut into tasks."""

from dataclasses import dataclass

from hybridc.compiler.kernels.products.contractions import Conv2d


@dataclass(frozen=True)
class Layer:
    """A 3x3 convolution of x of `shape` `[N, H, W, C]` to so many output channels (`columns`).

    A lane takes `group` channels at once; 2 are integers, for which larger tiles are not exact.
    Weights are `near` where they stay in the last cache from one run to the next.
    """

    shape: tuple[int, ...]
    columns: int
    conv: Conv2d
    group: int = 1
    near: bool = False


@dataclass(frozen=True)
class Work:
    """One layer at one tile: `tiles` tiles of `side` x `side` outputs, and the channels.

    `image` of the tiles are of one image; all of them where there is but one image.  A lane takes
    `group` channels at once: 2 where integers of 16 bits are multiplied, else 1.  Weights are
    `near` where they stay in the last cache from one run to the next.
    """

    side: int
    tiles: int
    image: int
    channels: int
    columns: int
    lanes: int
    group: int = 1
    near: bool = False

    @property
    def positions(self) -> int:
        """Products for each tile and pair of channels."""
        return (self.side + 2) ** 2

    @property
    def groups(self) -> list[int]:
        """Sizes of groups: parts of an image, or whole images.

        Which tiles are needed for a group that straddles images is more than TVM can tell.
        """
        sizes = divisors(self.tiles, self.tiles)
        return [d for d in sizes if self.image % d == 0 or d % self.image == 0]

    @property
    def vectors(self) -> int:
        """Vectors of output channels, the last one perhaps not full."""
        return -(-self.columns // self.lanes)

    @property
    def weight_bytes(self) -> int:
        """Bytes of the transformed weights."""
        return self.positions * self.channels * self.vectors * self.lanes * self.element

    @property
    def image_bytes(self) -> int:
        """Bytes of what is read and written besides weights, in 32 bits."""
        return 4 * self.tiles * self.side**2 * (self.channels + self.columns)

    @property
    def element(self) -> int:
        """Bytes of a transformed number."""
        return 4 // self.group


@dataclass(frozen=True)
class Cut:
    """A register tile of `rows` x `vectors`; tasks of `tiles` tiles and `panels` column panels.

    Where the input transform is `staged`, it is a parallel stage of its own, and tasks share out
    the columns too; else each task does it for its own tiles, and has every column.
    """

    rows: int
    vectors: int
    tiles: int
    panels: int
    staged: bool


@dataclass(frozen=True)
class Choice:
    """The tile's side, 0 for direct convolution; and tiles counted so that groups are whole."""

    side: int
    tiles: int = 0


def divisors(value: int, limit: int) -> list[int]:
    """The divisors of `value` up to `limit`, ascending; 1 is one of them at any limit."""
    return [d for d in range(1, max(1, min(value, limit)) + 1) if value % d == 0]
