"""What the cost model sees of a candidate: knobs, figures of analysis, and the lowered loop nest.

The features of loop nests are TVM's, one row for each store (Zheng et al., Ansor, OSDI 2020,
appendix B); here the row of the store with the most arithmetic stands beside the largest values of
the others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import inf, log, log2, nan, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hybridc.compiler import plugin
from hybridc.compiler.interfaces import Point, PrimFunc, ScheduleRule
from hybridc.compiler.kernels import kernel_cost
from hybridc.compiler.target import Target

Matrix = NDArray[np.float32]
Key = tuple[tuple[str, int], ...]

# The knobs of our rules; one of another name is not seen itself, only what it does to the loops.
KNOBS = (
    "rows", "vectors", "chunk", "panels", "tiles", "staged", "width", "threads", "unroll",
    "lanes", "tile", "streams", "heads",
)  # fmt: skip
# What analysis tells of a point, where its rule does; see `ScheduleRule.figures`.
FIGURES = (
    "registers", "in flight", "multiply-adds per load", "last tile", "waste of rows",
    "waste of columns", "lanes stored", "depth", "tasks per thread", "imbalance",
    "row tiles per panel", "panel over L1", "panel over L2", "rows over L1", "inputs over L2",
    "weights over L2", "task over L2", "outputs over inputs", "task work", "crowded lines",
    "every column", "whole image", "along",
)  # fmt: skip
# Kernels of one rule behave alike in ways that figures do not tell; a rule of another name is none
# of these.
RULES = (
    "dense", "skinny-dense", "conv2d", "winograd-conv2d", "depthwise-conv2d", "batch-matmul",
    "attention", "softmax", "layer-norm", "pooling", "reduction", "byte-windows",
)  # fmt: skip
STORE = 164  # features of a store
# In a store's row, TVM counts multiply-adds, additions and multiplications of floats first.
_ARITHMETIC = 3
COLUMNS = (
    *(f"knob {knob}" for knob in KNOBS),
    "estimate over default",
    *FIGURES,
    *(f"rule {rule}" for rule in RULES),
    "flops",
    "bytes",
    "outputs",
    "threads",
    "lanes",
    "stores",
    *(f"main store {i}" for i in range(STORE)),
    *(f"other stores {i}" for i in range(STORE)),
)
PLAIN = len(COLUMNS) - 2 * STORE  # columns before those of loop nests; the last counts stores


@dataclass(eq=False)
class Features:
    """The features of a kernel's points; what was computed once is kept."""

    func: PrimFunc
    rule: ScheduleRule
    match: Any
    target: Target
    _known: dict[Key, Matrix] = field(default_factory=dict[Key, Matrix])

    def of(self, points: Sequence[Point]) -> Matrix:
        """A row for each point, of the columns COLUMNS; NaN for what is not known."""
        return np.stack([self._row(self.rule.canonical(self.match, point)) for point in points])

    def plain(self, points: Sequence[Point]) -> Matrix:
        """The same without the loop nests, which takes no time: their columns are NaN."""
        rows = [self._plain(self.rule.canonical(self.match, point)) for point in points]
        return np.asarray([[*row, *[nan] * (2 * STORE)] for row in rows], np.float32)

    def _row(self, point: Point) -> Matrix:
        key = tuple(sorted(point.items()))
        if key not in self._known:
            row = [*self._plain(point)[:-1], *self._lowered(point)]
            self._known[key] = np.asarray(row, np.float32)
        return self._known[key]

    def _plain(self, point: Point) -> list[float]:
        """The first PLAIN columns; the last of them, the number of stores, is not known yet."""
        return [*self._knobs(point), *self._analysis(point), *self.kernel, nan]

    @cached_property
    def kernel(self) -> tuple[float, ...]:
        """What all points share: logarithms of work, traffic, outputs; threads and lanes."""
        outputs = prod(int(extent) for extent in self.func.params[-1].shape)
        work = (kernel_cost.flops(self.func), kernel_cost.traffic(self.func), outputs)
        return (*(log2(1 + count) for count in work), self.target.threads, self.target.lanes())

    def _knobs(self, point: Point) -> list[float]:
        return [log2(1 + point[knob]) if knob in point else nan for knob in KNOBS]

    def _analysis(self, point: Point) -> list[float]:
        """Logarithm of the estimated slowdown, and the figures."""
        cycles = self.rule.estimate(self.match, point)
        slower = nan if cycles is None or self._default is None else log(cycles / self._default)
        figures = self.rule.figures(self.match, point)
        return [slower, *(figures.get(name, nan) for name in FIGURES), *self._rule]

    @cached_property
    def _rule(self) -> list[float]:
        own = plugin.name_of(type(self.rule))
        return [float(own == rule) for rule in RULES]

    @cached_property
    def _default(self) -> float | None:
        return self.rule.estimate(self.match, self.rule.default(self.match, self.target))

    def _lowered(self, point: Point) -> Matrix:
        """The number of stores and their rows; NaN if the rule or TVM cannot make them."""
        from tvm.s_tir import meta_schedule

        extractor = meta_schedule.feature_extractor.PerStoreFeature()
        try:
            schedule = self.rule.schedule(self.match, point)
            candidate = meta_schedule.MeasureCandidate(schedule, [])
            stores = extractor.extract_from(self._context, [candidate])[0].numpy()
        except Exception:  # TVM raises errors of many kinds; such a candidate is measured or fails
            return np.full(1 + 2 * STORE, nan, np.float32)
        return _joined(stores)

    @cached_property
    def _context(self) -> Any:
        """TVM's context of a tuning, as far as features need it.

        Its own constructor first parses the tensor intrinsics of every device, which takes most
        of a minute.
        """
        from tvm import IRModule
        from tvm.s_tir.meta_schedule import TuneContext, _ffi_api

        made = TuneContext.__new__(TuneContext)
        module, threads, seed = IRModule({"main": self.func}), 1, 0
        made.__init_handle_by_constructor__(
            _ffi_api.TuneContext, module, self.target.tvm, None, None, "main", threads, seed, None
        )
        return made


def without_loops(features: Matrix) -> Matrix:
    """The features as they are before a point is scheduled."""
    made = features.copy()
    made[:, PLAIN - 1 :] = nan
    return made


def _joined(stores: Any) -> Matrix:
    """One row for all stores."""
    rows = np.asarray(stores, np.float32).reshape(-1, STORE)
    if not len(rows):
        return np.full(1 + 2 * STORE, nan, np.float32)
    main = int(rows[:, :_ARITHMETIC].sum(axis=1).argmax())
    others = np.delete(rows, main, axis=0)
    largest = others.max(axis=0) if len(others) else np.full(STORE, nan, np.float32)
    return np.concatenate([np.asarray([len(rows)], np.float32), rows[main], largest])


@dataclass(frozen=True)
class Similar:
    """A kernel whose best point is known: its rule, its `Features.kernel`, the point."""

    rule: str
    kernel: tuple[float, ...]
    point: Point


# Kernels of one cluster differ by at most this factor of 2 in work, traffic and outputs together.
_NEAR = 4.0


def hints(
    rule: str,
    kernel: tuple[float, ...],
    known: Sequence[Similar],
    space: Mapping[str, tuple[int, ...]],
    count: int = 2,
) -> tuple[Point, ...]:
    """Good points of the nearest kernels of the same rule, moved into this kernel's space."""
    distances = [
        (_distance(kernel, other), i) for i, other in enumerate(known) if other.rule == rule
    ]
    near = [known[i] for distance, i in sorted(distances) if distance <= _NEAR]
    found = [moved(other.point, space) for other in near if other.point.keys() == space.keys()]
    return tuple(point for i, point in enumerate(found) if point not in found[:i])[:count]


def _distance(kernel: tuple[float, ...], other: Similar) -> float:
    """Euclidean distance of the logarithms; kernels for other threads or lanes are far away."""
    if kernel[3:] != other.kernel[3:]:
        return inf
    return float(np.linalg.norm(np.subtract(kernel[:3], other.kernel[:3])))


def moved(point: Point, space: Mapping[str, tuple[int, ...]]) -> Point:
    """Each knob at its nearest value by ratio."""
    return {
        knob: min(values, key=lambda value: abs(log2(1 + value) - log2(1 + point[knob])))
        for knob, values in space.items()
    }
