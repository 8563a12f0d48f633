"""What a plug-in author implements: read this page, then write one file.

`Pass` rewrites a whole module, `ScheduleRule` schedules one kind of kernel, `Strategy` searches a
rule's space.  All are frozen dataclasses whose fields are their options.  The file's name is the
plug-in's name: `fold_batch_norm.py` defines `FoldBatchNorm`, which is called `fold-batch-norm`.
"""

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from math import gcd, inf, prod
from random import Random
from typing import Any, ClassVar, Protocol

from hybridc.compiler.kernel_record import Alternatives, KernelRecord
from hybridc.compiler.monitoring.timeline import Timeline
from hybridc.compiler.plugin import Plugin
from hybridc.compiler.target import CPU, Target

IRModule = Any  # tvm.ir.IRModule; TVM ships no types
PrimFunc = Any  # tvm.tirx.PrimFunc
Schedule = Any  # tvm.s_tir.Schedule

Point = Mapping[str, int]
Space = Mapping[str, tuple[int, ...]]
Usable = Callable[[str, Point], str | None]  # why a rule's point cannot be used, or None


class Advice(Protocol):
    """Rules and points for kernels from earlier measurements: a tuning log, a schedule lock."""

    def choose(
        self, kernel: str, workload: str, usable: Usable, mode: str
    ) -> tuple[str, Point] | None:
        """The rule and point for a kernel, by its workload key, or None if none is known.

        `usable(rule, point)` returns why they do not fit this kernel, or None.  `mode` is the state
        in which the model leaves the caches (see `cached_weights`).
        """
        ...

    def missed(self, kernel: str) -> None:
        """Note that a kernel got its rule's default, though the rule leaves a choice."""
        ...

    def fault(self, workload: str, rule: str, point: Point) -> str | None:
        """How a point was measured to fail: `wrong`, `crash`; None if it was not."""
        ...

    def library(self, workload: str) -> str | None:
        """The backend that computes a subgraph, by its key; None if that is not decided."""
        ...

    def fastest(self, among: Alternatives) -> int | None:
        """The index of the one that was measured to be clearly fastest; None if unknown."""
        ...


@dataclass
class Context:
    """What a pass may read besides the module, and where it reports what it did.

    `advice` takes precedence over the defaults of rules; `algorithms` are the kernels that it chose
    among others that compute the same.  `calibration` is the data to find ranges with (an
    `activations.Calibration`), or None.  `kernels` collects one record per scheduled kernel;
    `notes` are for the report, `timeline` for a trace.  `lowered` counts, by name, the operators
    that passes made less precise; what several passes did so counts once.  `sensitive` describes
    the products that quantisation may leave out again (a `sensitivity.Lowered`).  `idle` are the
    passes that changed nothing.  `backends` maps the key of a subgraph to its library, and
    `offloads` collects what libraries compute (`calls.Offload`).  `compressed` are the constants
    that a file holds in few bits (`compression.Known`).
    """

    target: Target
    rules: tuple["ScheduleRule", ...] = ()
    advice: Advice | None = None
    calibration: Any = None
    kernels: list[KernelRecord] = field(default_factory=list[KernelRecord])
    algorithms: list[KernelRecord] = field(default_factory=list[KernelRecord])
    notes: list[str] = field(default_factory=list[str])
    timeline: Timeline = field(default_factory=Timeline)
    lowered: Counter[str] = field(default_factory=Counter[str])
    sensitive: Any = None
    idle: set[str] = field(default_factory=set[str])
    backends: Mapping[str, str] = field(default_factory=dict[str, str])
    offloads: list[Any] = field(default_factory=list[Any])
    compressed: dict[bytes, Any] = field(default_factory=dict[bytes, Any])


@dataclass(frozen=True)
class Pass(Plugin, ABC):
    """Rewrites a module; its dataclass fields are its options, its docstring is its help."""

    def requires(self, module: IRModule) -> None:
        """Raise PassError if the module is not what this pass needs."""

    @abstractmethod
    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Return the rewritten module; never modify the given one."""

    def ensures(self, module: IRModule) -> None:
        """Raise PassError if the result is not what this pass guarantees."""

    def exact(self) -> "Pass":
        """The same pass, without anything that rounds differently from the model's operators."""
        return self


@dataclass(frozen=True)
class NotApplicable:
    """A rule's answer to a kernel that it does not take; `reason` completes "because …"."""

    reason: str


@dataclass(frozen=True)
class Match:
    """A kernel that a rule takes; rules extend it with the results of their analysis."""

    func: PrimFunc
    target: Target


@dataclass(frozen=True)
class ScheduleRule(Plugin, ABC):
    """Schedules one kind of kernel.

    The default point comes from analysis alone, never from a measurement; a tuner searches the
    same space, so a tuning record is the rule's name and a point.
    """

    priority: ClassVar[int]  # rules are asked from high to low; no two of a device share one
    device: ClassVar[str] = CPU  # the kind of target whose kernels it is asked about

    @abstractmethod
    def match(self, func: PrimFunc, target: Target) -> Any:
        """Return a Match (or a subclass of it), or NotApplicable with the reason."""

    @abstractmethod
    def knobs(self, match: Any) -> Space:
        """The possible values of each knob for this kernel."""

    @abstractmethod
    def default(self, match: Any, target: Target) -> Point:
        """Choose a point of `knobs(match)` by analysis of the shapes and the target."""

    @abstractmethod
    def schedule(self, match: Any, point: Point) -> Schedule:
        """Apply the point; the kernel computes the same function as before."""

    def canonical(self, match: Any, point: Point) -> Point:
        """The point that represents all with the same schedule: knobs as they take effect."""
        return point

    def estimate(self, match: Any, point: Point) -> float | None:
        """Cycles of one call, if the rule has an analytic model that ranks points; else None."""
        return None

    def figures(self, match: Any, point: Point) -> Mapping[str, float]:
        """Features of a point for cost models, by names in `tuning.prediction.features.FIGURES`.

        They are ratios, or logarithms of ratios, so that kernels of all sizes are comparable.
        """
        return {}


@dataclass(frozen=True)
class Trial:
    """A point that was tried: the seconds of one call, or None if it failed."""

    point: Point
    seconds: float | None = None

    @property
    def cost(self) -> float:
        """The seconds; infinite if it failed."""
        return inf if self.seconds is None else self.seconds


def _itself(point: Point) -> Point:
    return point


@dataclass(frozen=True)
class SearchTask:
    """What a strategy may know about a kernel: the space of its rule, and where to start.

    `hints` were good points of similar kernels.  `canonical` maps points with the same schedule to
    one form, which is tried once.  `score` predicts how points compare; lower is faster.  `match`
    is the kernel itself, for strategies that use more than the knobs; None in a recorded sweep.
    `name` distinguishes the kernel, and the state of the caches, from others with the same space.
    """

    space: Space
    default: Point
    hints: tuple[Point, ...] = ()
    canonical: Callable[[Point], Point] = _itself
    score: Callable[[Sequence[Point]], Sequence[float]] | None = None
    match: Match | None = None
    name: str = ""

    @property
    def size(self) -> int:
        """The number of points in the space, including those with the same schedule."""
        return prod(len(values) for values in self.space.values())

    def contains(self, point: Point) -> bool:
        """Whether the point has exactly the knobs of the space, each with one of its values."""
        return point.keys() == self.space.keys() and all(
            point[knob] in values for knob, values in self.space.items()
        )

    def key(self, point: Point) -> tuple[int, ...]:
        """A key that is equal for points with the same schedule, and only for these."""
        canonical = self.canonical(point)
        return tuple(canonical[knob] for knob in self.space)

    def point(self, index: int) -> Point:
        """The point with an index below `size`; the last knob varies fastest."""
        values: dict[str, int] = {}
        for knob in reversed(tuple(self.space)):
            index, place = divmod(index, len(self.space[knob]))
            values[knob] = self.space[knob][place]
        return {knob: values[knob] for knob in self.space}

    def shuffled(self, draw: Random) -> Iterator[Point]:
        """Every point once, in a pseudorandom order."""
        size = self.size
        start, step = draw.randrange(size), draw.randrange(size)
        while gcd(step, size) != 1:  # else some points would be left out
            step = draw.randrange(size)
        return (self.point((start + step * i) % size) for i in range(size))


# A strategy that offers this many points in a row that were tried has nothing new to offer.
_PATIENCE = 300


@dataclass(frozen=True)
class Strategy(Plugin, ABC):
    """Proposes points of a kernel's space; it measures nothing itself.

    It keeps no state between calls: its proposals follow from its options, `seed` and the history,
    so an interrupted search continues as if it had not been interrupted.
    """

    seed: int = 0

    @abstractmethod
    def candidates(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterable[Point]:
        """Points to try next, the most promising first; the sequence may be infinite.

        Each is a point of the space; `propose` skips those that were tried.  `history` is in the
        order of the trials, may be empty, and contains only points of the space.  `draw` is the
        only source of randomness.
        """

    def observe(self, task: SearchTask, history: Sequence[Trial]) -> None:
        """Called with all trials so far after each round, to show them elsewhere."""

    def propose(self, task: SearchTask, history: Sequence[Trial], budget: int) -> tuple[Point, ...]:
        """Up to `budget` points that were not tried; none only if the space is exhausted.

        The default comes first, then the hints.  No two proposals, and no proposal and trial, have
        the same schedule.
        """
        known = [trial for trial in history if task.contains(trial.point)]
        seen = {task.key(trial.point) for trial in known}
        draw = Random(f"{self.seed}/{len(known)}")
        openings = (point for point in (task.default, *task.hints) if task.contains(point))
        # The strategy is asked only where the openings leave something over.
        asked = (point for _ in range(1) for point in self.candidates(task, known, draw))
        offers = chain(
            _untried(task, openings, seen),
            _untried(task, asked, seen, _PATIENCE),
            _untried(task, task.shuffled(draw), seen),
        )
        return tuple(islice(offers, max(0, budget)))


def _untried(
    task: SearchTask, points: Iterable[Point], seen: set[tuple[int, ...]], patience: float = inf
) -> Iterator[Point]:
    """The points that are new, up to `patience` in a row that are not; `seen` grows."""
    repeated = 0
    for point in points:
        if not task.contains(point):
            raise ValueError(f"{point} is no point of the space")
        if (key := task.key(point)) in seen:
            repeated += 1
            if repeated >= patience:
                return
            continue
        repeated = 0
        seen.add(key)
        yield point
