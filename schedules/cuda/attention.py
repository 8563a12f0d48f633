"""Attention kernels as a GPU's rule sees them.

The kernel is `softmax(f(q k)) v` with whatever elementwise `f` (a scale, masks) and whatever is
behind it; the operands may lie in memory in any order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from math import e, inf, log2
from typing import Any

from tvm import tirx
from tvm.ir.expr import TensorLoad
from tvm.ir.prim import expr as prim
from tvm_ffi import structural_map

from hybridc.compiler.cuda.gpu import Gpu
from hybridc.compiler.interfaces import Match, NotApplicable, PrimFunc
from hybridc.compiler.kernels.attention.attention import CAUSAL
from hybridc.compiler.kernels.attention.attention_stages import STAGES
from hybridc.compiler.target import Target
from hybridc.schedules.cuda import product_kernel
from hybridc.schedules.cuda.operands import Source, source
from hybridc.schedules.cuda.product_kernel import Product, Store, substituted
from hybridc.schedules.loops import analysis
from hybridc.schedules.loops.analysis import Block

Expr = Any
Axes = Mapping[Any, Expr]
_LOG2_E = log2(e)


@dataclass(frozen=True)
class Flash(Match):
    """An attention kernel; `first` columns are met by the first row where it is causal, else 0.

    `scores` is the product of queries and keys, `values` that of weights and values; `blocks` are
    the stages by name.  `kind` is how products are multiplied: a type of 16 bits or `tf32` on
    tensor cores, or `float32`; `rate` are their FLOP/s on the whole GPU.
    """

    scores: Product
    values: Product
    blocks: Mapping[str, Block]
    written: Any
    store: Store
    first: int
    kind: str = ""
    rate: float = 0.0

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Heads times batch, rows, columns."""
        batch, rows, columns, _ = self.scores.sizes
        return batch, rows, columns

    @property
    def depth(self) -> int:
        """Elements of a query."""
        return self.scores.sizes[3]

    @property
    def features(self) -> int:
        """Elements of a value."""
        return self.values.right.extent

    @property
    def types(self) -> set[str]:
        """What queries, keys and values are."""
        return {side.dtype for side in (self.scores.left, self.scores.right, self.values.right)}

    @property
    def gpu(self) -> Gpu:
        """The GPU that it is scheduled for."""
        return self.target.device

    @cached_property
    def sources(self) -> tuple[Source, Source, Source]:
        """How queries, keys and values are copied; queries always row by row."""
        query, key = source(self.scores.left, self.scores), source(self.scores.right, self.scores)
        query = replace(query, how="elements") if query.by_depth else query
        return query, key, source(self.values.right, self.values)

    @property
    def masked(self) -> bool:
        """Whether scores meet a mask that lies in memory."""
        return len(self.blocks["logits"].loads) > 1

    @property
    def scale(self) -> float:
        """What logits are multiplied by where powers of 2 take the place of exponentials."""
        return _LOG2_E * self._logit[0]

    @property
    def plain(self) -> bool:
        """Whether logits are scores, but for the scale."""
        return isinstance(self._logit[1], TensorLoad)

    def logit(self, axes: Axes, score: Expr) -> Expr:
        """What is made of a score, but for the scale; `axes` are those of the scores."""
        block = self.blocks["logits"]
        own = dict(zip(block.spatial, self._in_order("scores", axes), strict=True))
        return substituted(self._known(self._logit[1], {"scores": score}), own)

    @cached_property
    def _logit(self) -> tuple[float, Expr]:
        """A logit as a factor and the rest."""
        return _factored(self.blocks["logits"].body.value)

    def result(
        self, axes: Axes, value: Expr, total: Expr, divided: bool
    ) -> tuple[list[Expr], Expr]:
        """Where a weighted sum goes and what becomes of it; `axes` are those of the values.

        It may be `divided` by the total already.
        """
        block, source = self.blocks["output"], self.blocks["values"].writes[0]
        load = next(load for load in block.loads if load.source.same_as(source))
        own = {axis: tirx.const(0, axis.ty.dtype) for axis in block.spatial}
        for index, place in zip(load.indices, self._in_order("values", axes), strict=True):
            own.update({axis: place for axis in own if axis.same_as(index)})
        made = block.body.value
        if divided:
            made = structural_map(made, (prim.Div, lambda quotient: quotient.a))
        made = self._known(made, {"values": value, "total": total})
        return self.store(own, substituted(made, own))

    def _in_order(self, name: str, axes: Axes) -> list[Expr]:
        return [axes[axis] for axis in self.blocks[name].spatial]

    def _known(self, value: Expr, known: Mapping[str, Expr]) -> Expr:
        """An expression with what it loads of some stages replaced."""

        def replaced(load: Any) -> Any:
            for name, new in known.items():
                if load.source.same_as(self.blocks[name].writes[0]):
                    return new
            return load

        return structural_map(value, (TensorLoad, replaced))


def _factored(value: Expr) -> tuple[float, Expr]:
    """A positive factor of what may be masked by -inf, which it leaves as it is; and the rest."""
    if isinstance(value, prim.Mul) and isinstance(value.b, prim.FloatImm) and value.b.value > 0:
        return float(value.b.value), value.a
    if isinstance(value, prim.Select) and isinstance(value.false_value, prim.FloatImm):
        factor, rest = _factored(value.true_value)
        if float(value.false_value.value) == -inf:
            return factor, prim.Select(value.condition, rest, value.false_value)
    return 1.0, value


def analyse(func: PrimFunc, target: Target) -> Flash | NotApplicable:
    """Find the stages of attention in a kernel."""
    if not set(STAGES) <= {block.name for block in analysis.blocks(func)}:
        return NotApplicable("it holds no attention")
    merged = product_kernel.keeping(func, STAGES)
    if isinstance(merged, NotApplicable):
        return merged
    blocks = {block.name: block for block in analysis.blocks(merged)}
    products = [_product(merged, target, blocks[name]) for name in ("scores", "values")]
    behind = [block for name, block in blocks.items() if name not in STAGES]
    store = product_kernel.store_of(blocks["output"], behind)
    for found in products:
        if isinstance(found, NotApplicable):
            return found
    if isinstance(store, NotApplicable):
        return store
    scores, values = products
    written = (behind[0] if behind else blocks["output"]).writes[0]
    return Flash(merged, target, scores, values, blocks, written, store, _first(scores, blocks))


def _product(func: PrimFunc, target: Target, block: Block) -> Any:
    found = product_kernel.factors_of(block)
    if isinstance(found, NotApplicable):
        return found
    left, right, batch = found
    depth = tuple(block.reduction.items())
    store: Any = product_kernel.store_of(block, ())
    written = block.writes[0]
    return Product(func, target, left, right, batch, depth, written, str(written.dtype), store)


def _first(scores: Product, blocks: Mapping[str, Block]) -> int:
    """The columns that the first row meets where rows are counted by one axis, and causal."""
    wide = sum(extent > 1 for _, extent in scores.left.own)
    limit = blocks["scores"].node.annotations.get(CAUSAL)
    return int(limit) if limit is not None and wide <= 1 else 0
