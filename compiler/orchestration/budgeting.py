"""How the time of a compilation goes to its stages, by the mode, and what is expected of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.hardware.roofline import FULL, Roofs
from hybridc.compiler.orchestration import modes
from hybridc.compiler.orchestration.bandit import Bandit
from hybridc.compiler.orchestration.components import EXACT
from hybridc.compiler.orchestration.experienced import Experienced, Past
from hybridc.compiler.orchestration.gains import Analysis, Facts, Gain, Predictor
from hybridc.compiler.orchestration.stages import Stage
from hybridc.compiler.orchestration.time_budget import OutOfTimeError, TimeBudget
from hybridc.compiler.units import format_duration

# Turns that the mode `dynamic` cuts tuning into, so that others may come between them.
TURNS = 4
# What is kept of a share to build and measure with, before anybody knows how long that takes.
_RESERVE = 0.2
_UNKNOWN = Facts((), Roofs({FULL: 1.0}, 1.0, 1.0, 0, (), "nothing"))


@dataclass
class Budgeting:
    """Divides the time budget among components, and remembers what each of them gained.

    `stages` are all that may be tried.  `past` are rows of earlier compilations; `learnt` collects
    those of this one.
    """

    options: Options
    stages: Sequence[Stage]
    time_budget: TimeBudget
    past: Sequence[Past] = ()
    learnt: list[Past] = field(default_factory=list[Past])

    def __post_init__(self) -> None:
        steering = self.options.steering
        self._ask: Callable[[], Facts | None] = lambda: None
        self._known: Facts | None = None
        self._seconds: float | None = None  # that the first stage took
        self._analysis: Predictor = Analysis(steering.depth)
        self._predictor: Predictor = Experienced(self._analysis, self.past)
        self._lowered = 0.0  # the log-speedup by the precision that stands
        self._bandit: Bandit | None = None
        self._weights: Mapping[str, float] = {}
        self._tells = (
            steering.predict
            or steering.adaptive
            or steering.strategy == "adaptive"
            or steering.mode in (modes.DYNAMIC, modes.INTELLIGENT)
        )

    def begin(self, facts: Callable[[], Facts | None], seconds: float) -> None:
        """Hear of the first stage: what finds out about the model now, and how long it took."""
        self._ask, self._seconds = facts, seconds

    @property
    def _facts(self) -> Facts:
        """What is known of the model, found out when it is needed: for that takes its time."""
        if self._seconds is None:
            return _UNKNOWN
        if self._known is None:
            self._known = self._ask() or _UNKNOWN
        return self._known

    @property
    def _typical(self) -> float:
        """Seconds that a stage takes, as far as anybody knows."""
        return 0.0 if self._seconds is None else max(self._seconds, self._facts.seconds)

    def predict(self, stage: Stage) -> Gain:
        """What a stage is expected to gain on what stands.

        Another precision takes the place of that one, and what it gained is lost.
        """
        return self._on_top(stage, self._predictor.predict(stage, self._facts))

    def _on_top(self, stage: Stage, gain: Gain) -> Gain:
        return replace(gain, mean=gain.mean - self._lowered) if stage.lossy else gain

    def told(self, stage: Stage) -> Mapping[str, Any] | None:
        """The prediction for the report, where somebody asks for it; none for the first stage."""
        asked = self._tells and stage.component != EXACT
        return self.predict(stage).to_json() if asked else None

    def lacking(self, stage: Stage, pending: Sequence[Stage]) -> str:
        """Why there is no time for a stage; empty where there is."""
        left = self.time_budget.left
        if left is None:
            return ""
        if left == 0.0:
            return "the budget is used up"
        if left <= self._typical:
            need, have = format_duration(self._typical), format_duration(left)
            return f"a stage takes about {need}, and {have} of the budget are left"
        if not self._share(stage, pending):
            return f"the weight of {stage.component} leaves it nothing of the budget"
        return ""

    def limited(self, options: Options, stage: Stage, left: Sequence[Stage]) -> Options:
        """Bound the tuning of a stage by what its component may spend.

        Raises OutOfTimeError where that is nothing.
        """
        if options.tuning is None or self.time_budget.left is None:
            return options
        share = self._share(stage, left)
        allowed = share - (self._typical or _RESERVE * share)
        if allowed <= 0:
            raise OutOfTimeError(f"no time is left for {stage.name}")
        own = options.tuning.seconds()
        seconds = allowed if own is None else min(own, allowed)
        return replace(options, tuning=replace(options.tuning, budget=f"{seconds:.3f}s"))

    def _share(self, stage: Stage, left: Sequence[Stage]) -> float:
        """The seconds that a stage may take, of what is left to all."""
        steering = self.options.steering
        if steering.strategy == "hierarchical":
            levels = {each.level for each in left if each.level in steering.levels}
            self.time_budget.weights = steering.level_weights or dict.fromkeys(levels, 1.0)
            return self.time_budget.allowance(stage.level, levels) or 0.0
        pending = {each.component for each in left}
        if self._bandit is not None:  # it gives whole turns
            rest = self.time_budget.left or 0.0
            return rest / TURNS if stage.component == "neural" else rest
        self.time_budget.weights = self.weights(sorted(pending))
        return self.time_budget.allowance(stage.component, pending) or 0.0

    def weights(self, components: Sequence[str]) -> dict[str, float]:
        """The weights of components by the mode; they sum to 1."""
        steering = self.options.steering
        return modes.weights(steering.mode, components, steering.weights, self._hopes(components))

    def _hopes(self, components: Sequence[str]) -> dict[str, float]:
        """What each component is expected to gain on the first stage by the best of its own."""
        hopes = dict.fromkeys(components, 0.0)
        if self.options.steering.mode != modes.INTELLIGENT:  # nobody asks for them
            return hopes
        for stage in self.stages:
            if stage.component in hopes:
                hope = self._predictor.predict(stage, self._facts).hope
                hopes[stage.component] = max(hopes[stage.component], hope)
        return hopes

    def choose(self, left: Sequence[Stage]) -> Stage | None:
        """The next stage: the first, or in the mode `dynamic` the one that the bandit draws.

        Of each component its next one is offered.
        """
        if not left or self.options.steering.mode != modes.DYNAMIC:
            return next(iter(left), None)
        if self._bandit is None:
            self._bandit = Bandit({}, self.options.seed)
        first = {stage.component: stage for stage in reversed(left)}
        offers = {_arm(stage): stage for stage in first.values()}
        for name, stage in offers.items():
            self._bandit.offer(name, self.predict(stage), max(self._typical, 1e-3))
        return offers[self._bandit.choose(sorted(offers))]

    def learn(
        self,
        stage: Stage,
        gained: float | None,
        seconds: float,
        *,
        kept: bool,
        disturbed: bool = False,
    ) -> None:
        """Hear what a stage gained, None where it was not timed, and how long it took.

        Of times that were `disturbed` nothing is remembered for other compilations.
        """
        if self._bandit is not None:
            self._bandit.learn(_arm(stage), (gained or 0.0) if kept else 0.0, seconds)
        if gained is not None and not disturbed and self._facts is not _UNKNOWN:
            expected = self._on_top(stage, self._analysis.predict(stage, self._facts)).mean
            facts = self._facts
            row = Past(stage.name, facts.machine, facts.features(), expected, gained, seconds)
            self.learnt.append(row)
        if kept and stage.lossy and gained is not None:
            self._lowered += gained


def in_turns(stages: Sequence[Stage], options: Options) -> list[Stage]:
    """Cut tuning into turns where the mode lets others come between them."""
    if options.steering.mode != modes.DYNAMIC:
        return list(stages)
    found: list[Stage] = []
    for stage in stages:
        turns = TURNS if stage.component == "neural" else 1
        found += [replace(stage, name=_turn(stage.name, i)) for i in range(turns)]
    return found


def _arm(stage: Stage) -> str:
    """What a stage teaches something of: turns of tuning of each other, others of themselves."""
    return stage.component if stage.measures else stage.name


def _turn(name: str, index: int) -> str:
    return f"{name}-{index + 1}" if index else name
