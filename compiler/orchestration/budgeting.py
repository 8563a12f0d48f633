"""How the time of a compilation is divided among its stages, by mode and expected gain."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.hardware.roofline import FULL, Roofs
from hybridc.compiler.orchestration import modes
from hybridc.compiler.orchestration.bandit import Bandit
from hybridc.compiler.orchestration.components import EXACT
from hybridc.compiler.orchestration.expected_gains.corrected import Corrected
from hybridc.compiler.orchestration.expected_gains.gains import Analysis, Facts, Gain, Predictor
from hybridc.compiler.orchestration.expected_gains.history import Past
from hybridc.compiler.orchestration.stages import Stage
from hybridc.compiler.orchestration.time_budget import OutOfTimeError, TimeBudget
from hybridc.compiler.text.units import format_duration

# Turns that the mode `dynamic` cuts tuning into, so that others may come between them.
TURNS = 4
# The part of a share that is reserved for building and measuring until their time is known.
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
        self._predictor: Predictor = Corrected(self._analysis, self.past)
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
        """Note how long the first stage took, and the function that now analyses the model."""
        self._ask, self._seconds = facts, seconds

    @property
    def _facts(self) -> Facts:
        """What is known about the model; analysed on first use, since that takes time."""
        if self._seconds is None:
            return _UNKNOWN
        if self._known is None:
            self._known = self._ask() or _UNKNOWN
        return self._known

    @property
    def _typical(self) -> float:
        """The expected seconds of a stage."""
        return 0.0 if self._seconds is None else max(self._seconds, self._facts.seconds)

    def predict(self, stage: Stage) -> Gain:
        """The expected gain of a stage over the best so far.

        A precision replaces the one that stands, whose gain is lost.
        """
        return self._on_top(stage, self._predictor.predict(stage, self._facts))

    def _on_top(self, stage: Stage, gain: Gain) -> Gain:
        return replace(gain, mean=gain.mean - self._lowered) if stage.lossy else gain

    def told(self, stage: Stage) -> Mapping[str, Any] | None:
        """The prediction for the report, if the options ask for it; None for the first stage."""
        asked = self._tells and stage.component != EXACT
        return self.predict(stage).to_json() if asked else None

    def lacking(self, stage: Stage, pending: Sequence[Stage]) -> str:
        """Why there is no time for a stage; empty if there is."""
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
        """Limit the tuning of a stage to its component's share.

        Raises OutOfTimeError if that is nothing.
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
        """The seconds that a stage may take, of what is left for all."""
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
        """The expected gain of each component's best stage over the first stage."""
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

        The bandit chooses among the next stages of all components.
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
        """Learn what a stage gained (None if it was not timed), and how long it took.

        Nothing is remembered for other compilations from `disturbed` times.
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
    """Cut tuning into turns if the mode interleaves it with other stages."""
    if options.steering.mode != modes.DYNAMIC:
        return list(stages)
    found: list[Stage] = []
    for stage in stages:
        turns = TURNS if stage.component == "neural" else 1
        found += [replace(stage, name=_turn(stage.name, i)) for i in range(turns)]
    return found


def _arm(stage: Stage) -> str:
    """The bandit's arm of a stage: one for all turns of tuning, else one per stage."""
    return stage.component if stage.measures else stage.name


def _turn(name: str, index: int) -> str:
    return f"{name}-{index + 1}" if index else name
