"""What a plug-in author implements: read this page, then write one file.

`Pass` rewrites a whole module, `ScheduleRule` makes one kernel fast, `Strategy` searches a rule's
space.  All are frozen dataclasses whose fields are their options; the file's name is the plug-in's
name (`fold_batch_norm.py` holds `FoldBatchNorm`, known as `fold-batch-norm`).
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
    """Knows rules and points for kernels that somebody measured: a tuning log, a schedule lock."""

    def choose(
        self, kernel: str, workload: str, usable: Usable, mode: str
    ) -> tuple[str, Point] | None:
        """The rule and the point for a kernel by its workload key, or None where none is known.

        `usable` says of a rule and a point why they do not do for this kernel; the model leaves the
        caches in the state `mode` (see `cached_weights`).
        """
        ...

    def missed(self, kernel: str) -> None:
        """Hear that a kernel got its rule's default, though it had a choice."""
        ...

    def library(self, workload: str) -> str | None:
        """The backend that computes a subgraph, by its key, where that is settled; else None."""
        ...

    def fastest(self, among: Alternatives) -> int | None:
        """Which of them was measured to be clearly fastest; None where that is not known."""
        ...


@dataclass
class Context:
    """What a pass may read besides the module, and where it says what it did.

    `advice` goes before the defaults of rules; `algorithms` are the kernels that it preferred to
    others that compute the same.  `calibration` are data to find ranges on (an
    `activations.Calibration`), None where nobody has any.  `kernels` collects one record for each
    kernel scheduled; `notes` goes into the report, and `timeline` into a trace, if one is wanted.
    `lowered` counts, by name, the operators that a pass made less precise than the model has them;
    `sensitive` tells each product that quantisation may leave out again (a `sensitivity.Lowered`).
    `idle` are passes that changed nothing.  `backends` tell the library of a subgraph by its key,
    `offloads` collects what these compute (`calls.Offload`).
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


@dataclass(frozen=True)
class Pass(Plugin, ABC):
    """Rewrites a module; its dataclass fields are its options, its docstring is its help."""

    def requires(self, module: IRModule) -> None:
        """Raise PassError if the module is not what this pass needs."""

    @abstractmethod
    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Return the rewritten module; never change the one given."""

    def ensures(self, module: IRModule) -> None:
        """Raise PassError if the result is not what this pass promises."""

    def exact(self) -> "Pass":
        """The same pass without what rounds differently from the operators of the model."""
        return self


@dataclass(frozen=True)
class NotApplicable:
    """A rule's answer to a kernel that is not its kind; `reason` completes "because …"."""

    reason: str


@dataclass(frozen=True)
class Match:
    """A kernel that a rule takes; rules extend it by what their analysis found."""

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
        """The values that each knob may take for this kernel."""

    @abstractmethod
    def default(self, match: Any, target: Target) -> Point:
        """Choose a point of `knobs(match)` from shapes and target."""

    @abstractmethod
    def schedule(self, match: Any, point: Point) -> Schedule:
        """Apply the point; the kernel computes the same function as before."""

    def canonical(self, match: Any, point: Point) -> Point:
        """The one point that stands for all with its schedule: knobs as they take effect."""
        return point

    def estimate(self, match: Any, point: Point) -> float | None:
        """Cycles of one call by analysis, where the rule has a model that can tell points apart."""
        return None

    def figures(self, match: Any, point: Point) -> Mapping[str, float]:
        """What analysis knows of a point, by names of `tuning.features.FIGURES`: for cost models.

        Ratios and their logarithms, so that kernels of all sizes are comparable.
        """
        return {}


@dataclass(frozen=True)
class Trial:
    """A point that was tried: the seconds of one call, or None where it failed."""

    point: Point
    seconds: float | None = None

    @property
    def cost(self) -> float:
        """Seconds, infinite for a failure."""
        return inf if self.seconds is None else self.seconds


def _itself(point: Point) -> Point:
    return point


@dataclass(frozen=True)
class SearchTask:
    """What a strategy may know of a kernel: the space of its rule, and where to begin.

    `hints` were good points of similar kernels.  `canonical` gives points with the same schedule
    one form, which is tried once.  `score` predicts how points compare: the lower, the faster.
    `match` is the kernel itself, for a strategy that knows more of it than the knobs; None where
    there is none, as in a recorded sweep.  `name` tells it, and the state of the caches in which it
    is measured, from others with the same space.
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
        """How many points the space has, those with the same schedule counted each."""
        return prod(len(values) for values in self.space.values())

    def contains(self, point: Point) -> bool:
        """Whether each knob, and no other, has one of its values."""
        return point.keys() == self.space.keys() and all(
            point[knob] in values for knob, values in self.space.items()
        )

    def key(self, point: Point) -> tuple[int, ...]:
        """The same for points with the same schedule, another for others."""
        canonical = self.canonical(point)
        return tuple(canonical[knob] for knob in self.space)

    def point(self, index: int) -> Point:
        """The point of a number below `size`; the last knob counts fastest."""
        values: dict[str, int] = {}
        for knob in reversed(tuple(self.space)):
            index, place = divmod(index, len(self.space[knob]))
            values[knob] = self.space[knob][place]
        return {knob: values[knob] for knob in self.space}

    def shuffled(self, draw: Random) -> Iterator[Point]:
        """Every point once, in an order that looks random."""
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

    It keeps nothing between calls: what it proposes follows from its options, `seed` and the
    history, so a search that was stopped goes on as if it had not been.
    """

    seed: int = 0

    @abstractmethod
    def candidates(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterable[Point]:
        """Points to try next, the most promising first, perhaps without end.

        Each is a point of the space; `propose` passes over those that were tried.  `history` is
        in the order of the trials, may be empty, and holds points of the space alone; `draw` is
        the only source of chance.
        """

    def observe(self, task: SearchTask, history: Sequence[Trial]) -> None:
        """Hear of all trials so far, after each round: for a strategy that shows them elsewhere."""

    def propose(self, task: SearchTask, history: Sequence[Trial], budget: int) -> tuple[Point, ...]:
        """Up to `budget` points that were not tried; none only where the space is exhausted.

        The default comes first, then the hints.  Two proposals, or a proposal and a trial, never
        have the same schedule.
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
        if (key := task.key(point)) in seen:
            repeated += 1
            if repeated >= patience:
                return
            continue
        repeated = 0
        seen.add(key)
        yield point
