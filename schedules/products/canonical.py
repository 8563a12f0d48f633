"""Loops of the block that stores a product, as tiles want them."""

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from hybridc.compiler.interfaces import Schedule
from hybridc.schedules.products.problem import Problem


def flatten_rows(schedule: Schedule, store: Any, shape: Sequence[int], leading: int) -> None:
    """Make one axis of the axes between images and columns.

    Fusing the loops instead would leave `row // width` in the region that a tile reads, and
    where tiles straddle two image rows that region is no rectangle of the product any more.
    """

    def flat(*index: Any) -> list[Any]:
        row: Any = 0
        for i, extent in zip(index[leading:-1], shape[leading:-1], strict=True):
            row = row * extent + i
        return [*index[:leading], row, index[-1]]

    schedule.transform_block_layout(
        store, tirx.IndexMap.from_func(flat, ndim=len(shape), index_dtype="int32")
    )


def split_columns(
    schedule: Schedule, columns: Any, problem: Problem, vectors: int, width: int
) -> Sequence[Any]:
    """Cut columns into panels, the vectors of a panel, and lanes.

    A mask in a vectorised loop would make it scalar.  So a ragged last panel becomes a loop of
    its own; where the panels are spread over tasks it cannot, and lanes are as many as divide
    the columns.  So they are in a panel that is alone, unless they are few.  The accumulators are
    whole vectors all the same.  Panels that overlap are whole in every vector.
    """
    if problem.overlaps:
        panel, wide = schedule.split(columns, [None, vectors * problem.lanes])
        return panel, *schedule.split(wide, [None, problem.lanes])
    lanes = problem.stored(vectors, width)
    group, lane = schedule.split(columns, [None, lanes])
    panel, part = schedule.split(group, [None, vectors * problem.lanes // lanes])
    return panel, part, lane
