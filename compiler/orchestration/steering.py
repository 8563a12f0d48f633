"""How a compilation is steered: strategy, mode, components, budget."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.hardware import host
from hybridc.compiler.orchestration import components, modes

# What hierarchical goes through, from the whole graph to the single kernel.
LEVELS = ("graph", "subgraph", "kernel")
DEPTHS = (1, 2, 3)


@dataclass(frozen=True)
class Steering:
    """How stages are chosen.

    `strategy` is a controller of `compiler/control/` as text; `mode` says how the budget goes to
    components (None: alike), `weights` replaces what it gives them.  `components` are those that
    may be used, None for all that the other options ask for.  `adaptive` leaves out what is
    predicted to gain no more than the noise, `predict` reports predictions, and `depth` is how far
    the analysis behind them goes: sums of the model, each kernel, each kernel's measured time.
    `order` names the stages or components that come first, and `threshold` is the share that a
    stage has to take off the costs to stay.  `workers` bounds the processes of `parallel`, `levels`
    and `level_weights` are those of `hierarchical`.

    `budget` in seconds is for the whole compilation.  `resume` takes the results of stages that an
    interrupted compilation left; `strict` fails where a stage or a component does.  `profile` adds
    the time of each kernel to the report.
    """

    strategy: str = "cascade"
    mode: str | None = None
    components: tuple[str, ...] | None = None
    weights: Mapping[str, float] = field(default_factory=dict[str, float])
    adaptive: bool = False
    predict: bool = False
    depth: int = 2
    order: tuple[str, ...] = ()
    threshold: float = 0.0
    workers: int | None = None
    levels: tuple[str, ...] = LEVELS
    level_weights: Mapping[str, float] = field(default_factory=dict[str, float])
    budget: float | None = None
    resume: bool = True
    strict: bool = False
    profile: bool = False

    def check(self) -> None:
        """Raise InputError for what is not known, or does not go together.

        Which strategies there are, only `controller.catalogue` knows.
        """
        for name in (*(self.components or ()), *self.weights):
            if name not in components.COMPONENTS:
                known = hint(name, components.COMPONENTS)
                raise InputError(f"no component is named {name!r}; {known}")
        for name in (*self.levels, *self.level_weights):
            if name not in LEVELS:
                raise InputError(f"no level is named {name!r}; {hint(name, LEVELS)}")
        self._check_numbers()
        host.check_workers(self.workers)
        modes.check(self.mode, self.budget)

    def _check_numbers(self) -> None:
        if not 0 <= self.threshold < 1:
            raise InputError(f"threshold must be a share from 0 to 1, got {self.threshold:g}")
        if self.depth not in DEPTHS:
            raise InputError(f"depth must be 1, 2 or 3, got {self.depth}")
        for what, weights in (("weight", self.weights), ("level weight", self.level_weights)):
            for name, value in weights.items():
                if not 0 <= value < float("inf"):
                    raise InputError(f"the {what} of {name} must be 0 or more, got {value:g}")
            if weights and not any(weights.values()):
                raise InputError(f"each {what} is 0: nothing would get any of the budget")
        if self.budget is not None and self.budget <= 0:
            raise InputError(f"budget must be positive, got {self.budget:g} s")
