"""A recurrence with a launch for each step, in which all multiprocessors read the weights.

A block of threads has sixteen hidden units of one sequence.  Its threads divide what these sum
over, and sixteen of them add up the parts, in a fixed order, and make the new state of them.
"""

from typing import Any

from tvm import tirx

from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.kernels.recurrence import LANES
from hybridc.schedules.cuda import tir
from hybridc.schedules.cuda.product_kernel import substituted
from hybridc.schedules.cuda.recurrence import State, Steps, of_block, of_lane, parts

Expr = Any
# Of a block where nothing speaks for another number: 16 parts of each sum, whose loads are under
# way together.
THREADS = 256


class Writer:
    """Writes one kernel, of as many launches as there are steps and one more."""

    def __init__(self, match: Steps, threads: int) -> None:
        self.match, self.threads = match, threads
        self.block, self.thread = tir.variable("block"), tir.variable("thread")
        _, batch, units = match.sizes
        self.states = tir.buffer("states", 2 * batch * units, "float32", "global")
        (state,), _ = parts(match.func.body.block)
        self.state = State(
            state,
            lambda indices: (indices[0] * batch + indices[1]) * units + indices[2],
            lambda place: tirx.BufferLoad(self.states, [place]),
            lambda place, value: tirx.BufferStore(self.states, value, [place]),
        )

    def function(self) -> PrimFunc:
        """The whole kernel."""
        walk = self.match.step
        step = tirx.For(
            walk.loop_var, walk.min, walk.extent, tirx.ForKind.SERIAL, self._step(walk.body)
        )
        body = tir.allocated([self.states], tir.sequence([self._begin(), step]))
        return self.match.func.with_body(body)

    def _begin(self) -> Any:
        """The first state and the first cell, a number to a thread."""
        _, batch, padded = self.match.sizes
        images, units = self.match.begin, self.match.begin.body
        count, block, thread = batch * padded, tir.variable("block"), tir.variable("thread")
        flat = block * self.threads + thread
        axes = {images.loop_var: flat // padded, units.loop_var: flat % padded}
        body = self.state.within(units.body, axes)
        body = tir.when([flat < count] if count % self.threads else [], body)
        blocks = ("blockIdx.x", block, -(-count // self.threads))
        return tir.launched([blocks, ("threadIdx.x", thread, self.threads)], body)

    def _step(self, blocks: Any) -> Any:
        """The launch of a step: sums in parts, then the new state."""
        images, total, (start, products, update) = of_block(blocks)
        _, batch, padded = self.match.sizes
        gates, across = self.match.gates, padded // LANES
        sums = tir.buffer("total", gates, "float32", "local")
        shared = tir.buffer("parts", self.threads * gates, "float32", "shared.dyn")
        lane, part = self.thread % LANES, self.thread // LANES
        axes = {images.loop_var: self.block // across, blocks.loop_var: self.block % across}

        def own(statement: Any) -> Any:
            return self.state.within(of_lane(statement, lane), axes, (total, sums))

        def place(which: Expr, gate: Expr) -> Expr:
            return tir.address(shared, (which * gates + gate) * LANES + lane)

        def add(which: Expr) -> Any:
            return tir.unrolled(gates, lambda g: _add(sums, g, tir.got("float32", place(which, g))))

        partly = [
            tir.unrolled(gates, lambda g: tirx.BufferStore(sums, tirx.const(0.0, "float32"), [g])),
            self._own_products(own(products), part),
            tir.unrolled(
                gates,
                lambda g: tir.call("put<float>", place(part, g), tirx.BufferLoad(sums, [g])),
            ),
            tir.barrier(),
        ]
        whole = [own(start), tir.loop(self.threads // LANES, add, "which"), own(update)]
        body = tir.sequence([*partly, tir.when([self.thread < LANES], tir.sequence(whole))])
        body = tir.allocated([shared, sums], body)
        count = ("blockIdx.x", self.block, batch * across)
        return tir.launched([count, ("threadIdx.x", self.thread, self.threads)], body)

    def _own_products(self, products: Any, part: Expr) -> Any:
        """Every so-many-th of the products that are added up."""
        apart, hidden = self.threads // LANES, self.match.hidden

        def turn(i: Expr) -> Any:
            k = i * apart + part
            typed = tirx.Cast(str(products.loop_var.ty.dtype), k)
            body = substituted(products.body, {products.loop_var: typed})
            return tir.when([k < hidden] if hidden % apart else [], body)

        return tir.loop(-(-hidden // apart), turn, "turn")


def _add(sums: Any, gate: Expr, value: Expr) -> Any:
    return tirx.BufferStore(sums, tirx.BufferLoad(sums, [gate]) + value, [gate])
