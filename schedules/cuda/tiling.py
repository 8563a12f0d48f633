"""How a product is cut into tiles on a GPU."""

from dataclasses import dataclass

from hybridc.compiler.cuda.gpu import CLUSTERS, WARP
from hybridc.schedules.cuda.operands import ROW_BYTES
from hybridc.schedules.cuda.product_kernel import Product

# Floats behind each row of sums in shared memory: what is stored at once, eight floats of each of
# four rows, lies in all banks then.
PAD = 8
FLOAT = 4  # bytes of a sum


@dataclass(frozen=True)
class Tiling:
    """How a product is cut: a block's tile, a warp's tile, stages of copies, parts of the depth."""

    rows: int
    columns: int
    warp_rows: int
    warp_columns: int
    stages: int
    splits: int = 1

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return WARP * (self.rows // self.warp_rows) * (self.columns // self.warp_columns)

    @property
    def stage_bytes(self) -> int:
        """Bytes of one stage: a tile of each side."""
        return (self.rows + self.columns) * ROW_BYTES

    @property
    def shared(self) -> int:
        """Bytes of shared memory of a block: the stages, or afterwards the sums."""
        return max(self.stages * self.stage_bytes, self.rows * (self.columns + PAD) * FLOAT)

    def blocks(self, product: Product) -> tuple[int, int, int]:
        """Blocks along rows, columns and batch."""
        batch, rows, columns, _ = product.sizes
        return -(-rows // self.rows), -(-columns // self.columns), batch

    def together(self, product: Product) -> int:
        """Blocks of a cluster, which add up a tile together; 1 where there are no clusters."""
        return self.splits if CLUSTERS in product.target.device.features else 1
