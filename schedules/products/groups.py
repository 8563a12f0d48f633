"""What products have in common whose weights are packed, with a scale for each group of inputs."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import tvm

from hybridc.compiler.interfaces import NotApplicable, PrimFunc, Schedule
from hybridc.schedules.products import contraction

PAD = "pad"


@dataclass(frozen=True)
class Groups:
    """A product of packed weights: its sizes, and the buffers of integers and of scales.

    `size` inputs have a scale together, and `share` inputs lie in an element of `integers`
    `[panels, depth / share, width]`.
    """

    rows: int
    columns: int
    depth: int
    size: int
    integers: Any
    scales: Any

    @property
    def share(self) -> int:
        """Inputs in an element of the integers."""
        return self.depth // int(self.integers.shape[1])

    @property
    def width(self) -> int:
        """Columns of a panel."""
        return int(self.scales.shape[2])

    @property
    def bytes_of_scale(self) -> float:
        """Bytes of scales for each weight."""
        return int(tvm.DataType(str(self.scales.dtype)).itemsize) / self.size


def find(func: PrimFunc, kind: str, partial: str, totals: Sequence[str]) -> Groups | NotApplicable:
    """The product of a kind, whose groups are added up in the block `partial`."""
    found = contraction.find_product(func, kind, (partial, *totals))
    if isinstance(found, NotApplicable):
        return found
    schedule, product = found
    rows, _, groups = contraction.extents(schedule, product)
    columns = contraction.extents(schedule, schedule.get_consumers(product)[0])[-1]
    block = contraction.named(schedule, partial)
    size = contraction.extents(schedule, block)[-1]
    integers, scales = (_parameter(schedule, each) for each in (block, product))
    return Groups(rows, columns, groups * size, size, integers, scales)


def vectorize_feeding(
    schedule: Schedule, names: Sequence[str], strided: Collection[str], lanes: int
) -> None:
    """Compute what feeds the product in vectors; those of `strided` add up one for each lane."""
    for name in names:
        if (block := contraction.named(schedule, name)) is None:
            continue
        last = schedule.get_loops(block)[-1]
        if name in strided:
            *_, last, word = schedule.get_loops(block)
            schedule.reorder(word, last)
        contraction.vectorize_copy(schedule, last, lanes)


def _parameter(schedule: Schedule, block: Any) -> Any:
    """The first parameter of three axes that a block reads: integers, or scales."""
    func = schedule.mod["main"]
    return next(
        read.source
        for read in schedule.get(block).reads
        if len(read.source.shape) == 3 and any(read.source.same_as(p) for p in func.params)
    )
