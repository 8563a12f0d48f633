"""Loops of the block that stores a product, as tiles want them."""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import tvm
from tvm import s_tir, sym, tirx
from tvm.ir.expr import TensorLoad
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import PrimFunc, Schedule
from hybridc.schedules.loops import vector_loops
from hybridc.schedules.products.problem import Problem


def flatten_rows(schedule: Schedule, store: Any, problem: Problem, trailing: int) -> None:
    """Make one axis of the axes between images and columns, which are `trailing` axes.

    Fusing the loops instead would leave `row // width` in the region that a tile reads, and
    where tiles straddle two image rows that region is no rectangle of the product any more.
    """
    shape = [int(axis.dom.extent) for axis in schedule.get(store).iter_vars]
    leading = next(i for i in range(len(shape)) if prod(shape[:i]) >= problem.images)
    if len(shape) - leading <= 1 + trailing:
        return

    def flat(*index: Any) -> list[Any]:
        row: Any = 0
        for i, extent in zip(index[leading:-trailing], shape[leading:-trailing], strict=True):
            row = row * extent + i
        return [*index[:leading], row, *index[-trailing:]]

    _transform(schedule, store, flat)


def part_groups(schedule: Schedule, store: Any, problem: Problem) -> PrimFunc:
    """The function whose store has an axis of groups of columns, and one of each group's.

    Every group then begins a vector of the product, as no loop over all columns tells.
    """
    each = problem.apart

    def cut(*index: Any) -> list[Any]:
        *outer, column = index
        return [*outer, column // each, column % each]

    if problem.height == 1:
        flatten_rows(schedule, store, problem, 1)
    _transform(schedule, store, cut)
    name = str(schedule.get(store).name_hint)

    def plain(realize: Any) -> Any:
        return _simplified(realize) if str(realize.block.name_hint) == name else realize

    func = schedule.mod["main"]
    return func.with_body(structural_map(func.body, (s_tir.SBlockRealize, plain)))


def _transform(schedule: Schedule, store: Any, change: Callable[..., list[Any]]) -> None:
    rank = len(schedule.get(store).iter_vars)
    index_map = tirx.IndexMap.from_func(change, ndim=rank, index_dtype="int32")
    schedule.transform_block_layout(store, index_map)


def _simplified(realize: Any) -> Any:
    """A block whose indices make use of how far its axes go."""
    block, analyzer = realize.block, sym.Analyzer()
    for axis in block.iter_vars:
        analyzer.bind(axis.var, axis.dom)

    def plain(load: Any) -> Any:
        return tirx.BufferLoad(load.source, [analyzer.simplify(index) for index in load.indices])

    def region(read: Any) -> Any:
        ranges = [
            tvm.ir.Range.from_min_extent(analyzer.simplify(axis.min), axis.extent)
            for axis in read.region
        ]
        return tirx.BufferRegion(read.source, ranges)

    body = structural_map(block.body, (TensorLoad, plain))
    reads = [region(read) for read in block.reads]
    return vector_loops.replaced(realize, body, block.iter_vars, reads=reads)


def split_columns(
    schedule: Schedule, columns: Sequence[Any], problem: Problem, vectors: int, width: int
) -> Sequence[Any]:
    """Cut columns into panels, the vectors of a panel, and lanes.

    A mask in a vectorised loop would make it scalar.  So a ragged last panel becomes a loop of
    its own; where the panels are spread over tasks it cannot, and lanes are as many as divide
    the columns.  So they are in a panel that is alone, unless they are few.  The accumulators are
    whole vectors all the same.  Panels that overlap are whole in every vector.
    """
    if problem.overlaps:
        panel, wide = schedule.split(columns[-1], [None, vectors * problem.lanes])
        return panel, *schedule.split(wide, [None, problem.lanes])
    lanes = problem.stored(vectors, width)
    *groups, within = columns
    group, lane = schedule.split(within, [None, lanes])
    panel, part = schedule.split(group, [None, vectors * problem.lanes // lanes])
    return schedule.fuse(*groups, panel) if groups else panel, part, lane
