"""What the analytic model of products needs to know of a kernel."""

from dataclasses import dataclass
from math import gcd

# Lanes of the vectors in which a panel is stored that is alone and not whole.
_FEWEST = 4


@dataclass(frozen=True)
class Problem:
    """What the model needs to know of a kernel.

    `images` x `height` independent products of `rows` x `columns` over `depth`; successive rows lie
    `row_stride` bytes apart, and one image reads `image_bytes` of activations. A matrix product has
    one image of height 1; a convolution's rows are the pixels of one image row. `shared` are the
    neighbouring columns that read the same activations, 0 for all, 1 where each column reads its
    own; `parts` are the registers that an operand of a multiply-add takes, `spare` those that its
    products take on their way, and `held` those of activations that stay for later steps of the
    depth. A step reads `weight_bytes` for each lane, and spends `unpacking` cycles to make a vector
    of what it read; a multiply-add takes `cycles`, 0 if fused, and each of its operands `loads`.
    `taps` are the columns of a window that share what they read, of an image that rows go through
    by `stride`. Sums over the depth may be `divided` where a tile has few. What stands for weights
    `packs` in a task that is a whole product, else beforehand. `narrow` operands go several to a
    step. Activations are `widened` by each task that reads them. Where vectors do not divide the
    columns, the last panel is whole and `overlaps` the one before it. Groups of `apart` columns
    each are rounded up to whole vectors for themselves.
    """

    images: int
    height: int
    rows: int
    columns: int
    depth: int
    row_stride: int
    image_bytes: int
    lanes: int
    halo_bytes: int = 0
    shared: int = 0
    parts: int = 1
    weight_bytes: float = 4
    unpacking: float = 0
    held: int = 0
    spare: int = 0
    cycles: float = 0
    loads: int = 1
    taps: int = 1
    stride: int = 1
    divided: bool = False
    packs: bool = False
    narrow: bool = False
    widened: bool = False
    overlaps: bool = False
    apart: int = 0

    @property
    def group(self) -> int:
        """The channels of a group where a vector holds those of several, else 1."""
        return self.shared if not self.apart and 0 < self.shared < self.lanes else 1

    @property
    def ordered(self) -> bool:
        """Whether multiply-adds are ordered: taps share activations, or lanes read their own."""
        return self.taps > 1 or self.group > 1

    def columns_read(self, rows: int) -> float:
        """Activations that a tile reads in one step of the depth."""
        return min(rows * self.taps, (rows - 1) * self.stride + self.taps) / self.taps

    def units(self, rows: int) -> int:
        """Into how many pieces one image can be cut: image rows, else tiles of `rows` rows."""
        return self.height if self.height > 1 else -(-self.rows // rows)

    def panels(self, vectors: int) -> int:
        """Column panels of `vectors` vectors."""
        together = self.apart or self.columns
        return self.columns // together * -(-together // (vectors * self.lanes))

    @property
    def together(self) -> int:
        """Vectors of columns that read the same activations."""
        return max(1, -(-(self.shared or self.columns) // self.lanes))

    def moved(self, vectors: int) -> int:
        """Columns of the last panel that the one before it has computed too."""
        return -self.columns % (vectors * self.lanes) if self.overlaps else 0

    def stored(self, vectors: int, width: int) -> int:
        """Lanes of the vectors that a task of `width` panels stores; a last one may not be whole.

        What ends behind the columns is stored element by element.
        """
        if self.apart:
            return gcd(self.apart, self.lanes)
        panels, shared = self.panels(vectors), gcd(self.columns, self.lanes)
        alone = panels == 1 and shared >= _FEWEST
        return shared if width < panels or alone else self.lanes
