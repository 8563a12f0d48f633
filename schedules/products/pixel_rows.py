"""Products over pixels: the rows of a 1x1 convolution told apart by image, image row and column.

`contractions.dense` counts rows, whatever they are rows of.  A tile of some pixels of an image row
then seems to reach into the next one, since its end is only known as a row's number.
"""

from collections.abc import Sequence
from typing import Any

from tvm import s_tir, sym, tirx
from tvm_ffi import structural_map

from hybridc.compiler.interfaces import Schedule
from hybridc.schedules.loops import access, vector_loops
from hybridc.schedules.products import contraction


def split_rows(schedule: Schedule, product: Any, shape: Sequence[int]) -> Schedule:
    """The schedule with a product's rows as images x height x width, which `shape` begins with."""
    _, height, width = shape[:3]

    def places(row: Any) -> list[Any]:
        return [row // (height * width), row // width % height, row % width]

    def of_block(row: Any, column: Any, depth: Any) -> list[Any]:
        return [*places(row), column, depth]

    def of_buffer(row: Any, column: Any) -> list[Any]:
        return [*places(row), column]

    schedule.transform_block_layout(product, _map(of_block, 3))
    schedule.transform_layout(product, ("write", 0), _map(of_buffer, 2))
    func = schedule.mod["main"]
    body = structural_map(func.body, (s_tir.SBlockRealize, _simplified))
    return contraction.new_schedule(func.with_body(body))


def _map(function: Any, axes: int) -> Any:
    return tirx.IndexMap.from_func(function, ndim=axes, index_dtype="int32")


def _simplified(realize: Any) -> Any:
    """A block whose indices are as plain as the extents of its axes allow."""
    axes = realize.block.iter_vars
    if not len(axes):
        return realize
    analyzer = sym.Analyzer()
    for axis in axes:
        analyzer.bind(axis.var, axis.dom)

    block = structural_map(realize.block, (access.DIVISIONS, analyzer.simplify))
    plain = s_tir.SBlockRealize(realize.iter_values, realize.predicate, block)
    return vector_loops.replaced(plain, block.body, _reducing(block)) if block.init else plain


def _reducing(block: Any) -> list[Any]:
    """A product's axes; TVM takes the new axis of a depth of 1 for one that is not summed over."""
    *axes, depth = block.iter_vars
    return [*axes, tirx.IterVar(depth.dom, depth.var, tirx.IterVar.CommReduce)]
