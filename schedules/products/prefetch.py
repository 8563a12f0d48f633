"""Software prefetch: what comes next is on its way from memory while a tile is multiplied.

A CPU's own prefetchers follow lines that lie one behind the other.  What an epilogue reads and
writes are short pieces of many rows, and each panel of weights begins elsewhere: both come late,
and the multiply-adds wait.  A 1x1 convolution of 64 to 256 channels that adds a residual reached
116 GFLOP/s with all data in memory; with the epilogue's lines asked for one by one in the loop
over the depth, 177 (Zen 4, 2 threads).  All of them ahead of that loop gained 4 %: a core waits
for some twenty lines at once, and the loop's own loads queue behind them.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, prod
from typing import Any

import numpy as np
import tvm
from tvm import s_tir, tirx
from tvm.s_tir import Schedule as TVMSchedule

from hybridc.compiler.interfaces import Schedule
from hybridc.compiler.kernels.tensor_expressions import KERNEL
from hybridc.compiler.target import Target
from hybridc.schedules.loops import access, vector_loops
from hybridc.schedules.loops.statements import number_like
from hybridc.schedules.products import tiling

Expr = Any  # tvm.ir.Expr
Statement = Any  # tvm.tirx.Stmt
Var = Any  # tvm.ir.expr.Var

_LINE = 64
# Operands of `llvm.prefetch`: the cache to bring data to.
_L1, _L2 = 3, 2
# What moving the data takes, as a share of the arithmetic, below which nothing is asked for: it
# would only push out what the tile works with.  Measured with outputs of 512 channels and more.
_LEAST = 0.05


def ahead(schedule: Schedule, target: Target) -> Schedule:
    """Add prefetches to the loops over the depth of a schedule that is otherwise finished."""
    func = schedule.mod["main"]
    body = _Writer(func.params, target).visit(func.body, ())
    return TVMSchedule(tvm.IRModule({"main": func.with_body(body)}), error_render_level="fast")


@dataclass(frozen=True)
class _Nest:
    """A block and the loops around it, as far as they hold nothing else."""

    loops: tuple[Any, ...]
    realize: Any

    @property
    def updates(self) -> bool:
        """Whether this is a product's multiply-add."""
        kinds = [int(axis.iter_type) for axis in self.realize.block.iter_vars]
        return KERNEL in self.realize.block.annotations and tirx.IterVar.CommReduce in kinds

    @property
    def depth(self) -> list[Any]:
        """The loops that are not unrolled: those over the depth of a product."""
        return [loop for loop in self.loops if int(loop.kind) == tirx.ForKind.SERIAL]

    def place(self, region: Any, values: Mapping[Var, Expr]) -> list[Expr]:
        """Where a region begins with the loops at `values`, and at 0 where these name none."""
        axes = [axis.var for axis in self.realize.block.iter_vars]
        bound = dict(zip(axes, self.realize.iter_values, strict=True))
        start = {loop.loop_var: number_like(0, loop.loop_var) for loop in self.loops}
        found = [axis.min for axis in region.region]
        for known in (bound, {**start, **values}):
            found = [vector_loops.substitute(index, known) for index in found]
        return found


@dataclass(frozen=True)
class _Request:
    """`lines` to ask for, spread over the iterations of the loops `around` and over the depth."""

    lines: int
    around: tuple[Any, ...]
    ask: Callable[[Expr], Statement]

    @property
    def each(self) -> int:
        """Lines to ask for while one tile is computed."""
        return -(-self.lines // _counted(self.around)[1])


class _Writer:
    """Rewrites the body of one function."""

    def __init__(self, params: Sequence[Any], target: Target) -> None:
        self.params, self.target = list(params), target

    def visit(self, node: Statement, outer: tuple[Any, ...]) -> Statement:
        """Find the register tiles; `outer` are the loops around the node within its task."""
        if isinstance(node, tirx.SeqStmt):
            return self._tile(list(node.seq), outer)
        if isinstance(node, s_tir.SBlockRealize) and not node.block.iter_vars:
            return vector_loops.replaced(node, self.visit(node.block.body, outer), [])
        if isinstance(node, tirx.For):
            serial = int(node.kind) == tirx.ForKind.SERIAL
            return _with_body(node, self.visit(node.body, (*outer, node) if serial else ()))
        return node

    def _tile(self, statements: list[Statement], outer: tuple[Any, ...]) -> Statement:
        nests = [_nest(statement) for statement in statements]
        at = next((i for i, nest in enumerate(nests) if nest and nest.updates), None)
        if at is None:
            return tirx.SeqStmt([self.visit(statement, outer) for statement in statements])
        update: Any = nests[at]
        if update.depth:
            requests = self._weights(update, outer)
            for nest in nests[at + 1 :]:
                requests += self._epilogue(nest, update) if nest else []
            if requests:
                statements[at] = _asking(update, requests)
        return tirx.SeqStmt(statements)

    def _epilogue(self, nest: _Nest, update: _Nest) -> list[_Request]:
        """Ask for the tile's rows of what its result is combined with, and of where it goes."""
        *_, row, part, lane = nest.loops
        found: list[_Request] = []
        rows = int(row.extent)
        for region, write in self._row_by_row(nest, row):
            size = _itemsize(region)
            lines = -(-int(part.extent) * int(lane.extent) * size // _LINE)

            def ask(
                line: Expr, of: tuple[Any, int, int, int] = (region, write, size, lines)
            ) -> Any:
                region, write, size, lines = of
                column = line % lines * (_LINE // size)
                indices = nest.place(region, {row.loop_var: line // lines, lane.loop_var: column})
                return _prefetch(region.source, indices, write, _L1)

            found.append(_Request(rows * lines, (), ask))
        steps = _counted(update.depth)[1]
        return found if self._pays(sum(r.lines for r in found), update, steps) else []

    def _row_by_row(self, nest: _Nest, row: Any) -> Iterator[tuple[Any, int]]:
        """The arguments of which each row of the tile has its own; 1 for those written."""
        block = nest.realize.block
        for region, write in [*((r, 0) for r in block.reads), *((r, 1) for r in block.writes)]:
            moving = nest.place(region, {row.loop_var: row.loop_var})
            if self._argument(region) and _use(moving, row.loop_var):
                yield region, write

    def _weights(self, update: _Nest, outer: Sequence[Any]) -> list[_Request]:
        """Ask for the panel of weights that comes after this one."""
        region = list(update.realize.block.reads)[-1]
        indices = update.place(region, {})
        outer = [loop for loop in outer if int(loop.extent) > 1]
        moving = [loop for loop in outer if _use(indices, loop.loop_var)]
        tiles = outer[len(moving) :]
        # The loops over panels have to be outside of those that use one again and again.
        if not self._argument(region) or moving != outer[: len(moving)]:
            return []
        size = _itemsize(region)
        lines = -(-_elements(update, region) * size // _LINE)
        if not moving or not self._pays(lines, update, _counted([*tiles, *update.depth])[1]):
            return []
        if tiles and 2 * lines * _LINE > self.target.l2:
            return []  # it would push out the panel that the next tile reads again
        panel, panels = _counted(moving)
        coming = _uncounted(tirx.min(panel + 1, panels - 1), moving)
        indices = [vector_loops.substitute(index, coming) for index in indices]

        def ask(line: Expr) -> Statement:
            place = indices[-1] + line * (_LINE // size)
            return _prefetch(region.source, [*indices[:-1], place], 0, _L2)

        return [_Request(lines, tuple(tiles), ask)]

    def _pays(self, lines: int, update: _Nest, steps: int) -> bool:
        """Whether lines take a share worth mentioning of the time of so many steps."""
        unrolled = (loop for loop in update.loops if int(loop.kind) == tirx.ForKind.UNROLLED)
        multiply_adds = steps * prod(int(loop.extent) for loop in unrolled)
        machine = self.target.machine
        cycles = multiply_adds / machine.fma_per_cycle
        return lines * _LINE / machine.dram_bytes_per_cycle >= _LEAST * cycles

    def _argument(self, region: Any) -> bool:
        return any(region.source.same_as(param) for param in self.params)


def _nest(node: Statement) -> _Nest | None:
    loops: list[Any] = []
    while isinstance(node, tirx.For):
        loops.append(node)
        node = node.body
    return _Nest(tuple(loops), node) if isinstance(node, s_tir.SBlockRealize) else None


def _asking(update: _Nest, requests: Sequence[_Request]) -> Statement:
    """The nest with its requests, which stand as far apart in the depth as suffices.

    A request and its address take ten instructions or more.  A step of a small tile has no room
    for them: 4 rows x 3 vectors of 8 lanes came to 54 % of the peak with a request in each.
    """
    *outer, loop = update.depth
    extent, slots = int(loop.extent), max(request.each for request in requests)
    every = _distance(extent, _counted(outer)[1] * extent // slots)
    part = _with_body(_named(loop, extent // every), loop.body)
    added: list[Statement] = []
    for request in requests:
        step, steps = _counted([*request.around, *outer, part])
        added += [request.ask(line) for line in _spread(step, steps, request.lines)]
    inner = _named(loop, every)
    place = {loop.loop_var: part.loop_var * every + inner.loop_var}
    body = _with_body(inner, vector_loops.substitute(loop.body, place))
    return _replaced(update.loops, loop, _with_body(part, tirx.SeqStmt([*added, body])))


def _distance(extent: int, most: int) -> int:
    """Steps from one request to the next: a divisor of `extent`, at most `most` unless that is 2.

    Two steps LLVM unrolls whole, and where a tile fills the registers it then keeps no accumulator
    in them: 14 rows x 2 vectors of 16 lanes came to 144 GFLOP/s of 235, with more steps to 233.
    """
    fitting = tiling.divisors(extent)
    every = max(each for each in fitting if each <= max(1, most))
    return next((each for each in fitting if each > 2), every) if every == 2 else every


def _named(loop: Any, extent: int) -> Any:
    """A loop like another, with a variable of its own and an extent of its own."""
    var = tirx.Var(loop.loop_var.name, loop.loop_var.ty)
    return tirx.For(var, loop.min, number_like(extent, var), loop.kind, loop.body)


def _replaced(loops: Sequence[Any], old: Any, new: Statement) -> Statement:
    """The nest of loops with another statement in place of one of them."""
    body = new
    for loop in reversed(loops[: [bool(loop.same_as(old)) for loop in loops].index(True)]):
        body = _with_body(loop, body)
    return body


def _spread(step: Expr, steps: int, lines: int) -> list[Expr]:
    """The lines to ask for in a step: all of them over all steps, in even distances."""
    shared = gcd(steps, lines)
    if lines <= steps:
        return [step * (lines // shared) // (steps // shared)]
    each = -(-lines // steps)
    return [tirx.min(step * each + i, lines - 1) for i in range(each)]


def _elements(nest: _Nest, region: Any) -> int:
    """The elements of a panel: all that the loops of a tile read of the weights."""
    used = nest.place(region, {loop.loop_var: loop.loop_var for loop in nest.loops})
    looped = prod(int(loop.extent) for loop in nest.loops if _use(used, loop.loop_var))
    return looped * prod(int(axis.extent) for axis in region.region)


def _counted(loops: Sequence[Any]) -> tuple[Expr, int]:
    """Which of all iterations of some loops this is, and how many there are."""
    number: Any = 0
    for loop in loops:
        number = number * loop.extent + loop.loop_var
    return number, prod(int(loop.extent) for loop in loops)


def _uncounted(number: Expr, loops: Sequence[Any]) -> dict[Var, Expr]:
    """The variables of loops in one of their iterations."""
    values: dict[Var, Expr] = {}
    for loop in reversed(loops):
        values[loop.loop_var] = number % loop.extent
        number = number // loop.extent
    return values


def _prefetch(buffer: Any, indices: Sequence[Expr], write: int, cache: int) -> Statement:
    """Ask for the line of an element; a place outside of the buffer does no harm."""
    address = tirx.address_of(tirx.BufferLoad(buffer, indices))
    operands = (tirx.const(value, "int32") for value in (write, cache, 1))
    return tirx.Evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch", address, *operands))


def _with_body(loop: Any, body: Statement) -> Any:
    return tirx.For(
        loop.loop_var, loop.min, loop.extent, loop.kind, body, loop.thread_binding, loop.annotations
    )


def _use(indices: Sequence[Expr], var: Var) -> bool:
    return any(access.uses(index, var) for index in indices)


def _itemsize(region: Any) -> int:
    return np.dtype(str(region.source.dtype)).itemsize
