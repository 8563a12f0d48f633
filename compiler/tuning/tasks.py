"""The distinct kernels of models, and which of them gets the next trials."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from tvm import relax, tirx
from tvm.ir import GenericConst

from hybridc.compiler import plugin
from hybridc.compiler.hardware import cached_weights
from hybridc.compiler.interfaces import (
    Context,
    IRModule,
    NotApplicable,
    Point,
    PrimFunc,
    ScheduleRule,
    SearchTask,
    Trial,
)
from hybridc.compiler.ir.rewrite import bindings_of, operator
from hybridc.compiler.kernels import kernel_cost
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.record import Record
from hybridc.compiler.log.winner import Measured
from hybridc.compiler.target import Target
from hybridc.compiler.tuning import strategies
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.prediction.predictor import Predictor
from hybridc.compiler.tuning.trials import history

# A rule, and what tells schedules by it apart.
Choice = tuple[str, tuple[int, ...]]

# For a kernel without measurements: the share of its time that the best point is expected to save,
# and the number of trials after which half of that expectation is gone.
_HOPE, _HALF = 0.1, 8
# A gain below this share of a kernel's time is within the noise of its median.
NOISE = 0.005
# The number of best times from which the spacing of good points is estimated.
_SPACINGS = 4


@dataclass(eq=False)
class Task:
    """A kernel to tune: how often the models call it, and what was tried so far.

    `proposed` is set once its strategy was asked for points other than the default, `exhausted`
    once that has no more to offer.  `rivals` are the same kernel under other rules, each at a few
    imported points; the first of these is the rival's default.
    """

    kernel: Kernel
    calls: int
    workload: Described
    search: SearchTask
    history: list[Trial] = field(default_factory=list[Trial])
    proposed: bool = False
    exhausted: bool = False
    rivals: "list[Task]" = field(default_factory=list["Task"])

    @cached_property
    def predictor(self) -> Predictor:
        """The predictor of its points' times."""
        return Predictor(self.kernel)

    @cached_property
    def features(self) -> tuple[float, ...]:
        """The features that describe the kernel: see `features.Features.kernel`."""
        return self.predictor.features.kernel

    @property
    def best(self) -> Trial | None:
        """The fastest trial."""
        fastest = min(self.history, key=lambda trial: trial.cost, default=None)
        return fastest if fastest and fastest.seconds is not None else None

    @property
    def default(self) -> Trial | None:
        """The trial of the point that compiling takes without tuning."""
        return next((trial for trial in self.history if self.is_default(trial.point)), None)

    @property
    def fresh(self) -> bool:
        """Whether its default is still to be measured: it has no time, and is in the space."""
        held = self.search.contains(self.search.default)
        return held and self.default is None and not self.exhausted

    @property
    def waiting(self) -> int:
        """How many imported, unchecked points are still to be measured."""
        tried = {self.search.key(trial.point) for trial in self.history}
        return sum(self.search.key(point) not in tried for point in self.search.hints)

    def is_default(self, point: Point) -> bool:
        """Whether a point gives the schedule that compiling takes without tuning."""
        here = self.search
        return here.contains(point) and here.key(point) == here.key(here.default)

    def usable(self, measured: Measured) -> str | None:
        """Why a record no longer applies to this kernel; None if it does (see `log.winner`)."""
        if measured.rule != self.kernel.rule_name:
            return f"{measured.rule} is not the rule that takes it here"
        fits = self.search.contains(measured.point)
        return None if fits else "it is no longer a point of the rule's space"

    @property
    def first(self) -> Choice:
        """The choice that is its default."""
        return self.kernel.rule_name, self.search.key(self.search.default)

    def choice(self, rule: str, point: Point) -> Choice | None:
        """The choice that a point stands for, of rivals too; None if it does not fit the kernel."""
        for each in (self, *self.rivals):
            if each.kernel.rule_name == rule and each.search.contains(point):
                return rule, each.search.key(point)
        return None

    def acceptable(self, measured: Measured) -> str | None:
        """As `usable`, but points of rivals are accepted as well."""
        if self.choice(measured.rule, measured.point) is not None:
            return None
        return self.usable(measured)

    def remember(self, records: Iterable[Record]) -> None:
        """Take the trials in the log; points that are no longer in the space are skipped."""
        found = history(records, self.kernel.rule_name, self.kernel.mode)
        self.history = [trial for trial in found if self.search.contains(trial.point)]

    @property
    def trials(self) -> int:
        """How many points were tried, without the default, which is measured in any case."""
        return len(self.history) - (self.default is not None)

    @property
    def seconds(self) -> float:
        """Seconds that the models spend in it at its best point, or at the analytic limit."""
        one = self.best.seconds if self.best else None
        return self.calls * (one or at_least(self.kernel))

    def gain(self, trials: int) -> float:
        """Seconds per call that so many more trials are expected to save.

        If the trials of the past and those to come are alike, the fastest of all `t + n` is one of
        the new ones with probability `n / (t + n)`.  It is then faster than the fastest so far by
        about one spacing of the fastest times.
        """
        if self.exhausted:
            return 0.0
        best, tried = self.seconds / self.calls, len(self.history)
        hope: float = _HOPE * best * 0.5 ** (tried / _HALF)
        default = self.default
        others = [trial for trial in self.history if trial is not default]
        searched = sorted(trial.seconds for trial in others if trial.seconds is not None)
        if len(searched) > _SPACINGS:
            spacing = (searched[_SPACINGS] - searched[0]) / _SPACINGS
            # If the default is by far the best, even the next record will not reach it.
            hope = max(hope, best - (searched[0] - spacing))
        return hope * trials / (tried + trials)

    def promising(self, trials: int) -> bool:
        """Whether so many trials may gain more than the noise of a measurement."""
        return self.gain(trials) > NOISE * self.seconds / self.calls


def choose(tasks: Iterable[Task], trials: int) -> Task | None:
    """The kernel in which so many trials are expected to save the models the most time.

    The gradient of the end-to-end time (L. Zheng et al., Ansor, OSDI 2020, §6), with the gain
    above as its estimate.  Kernels whose default was never run come first, then those with
    unchecked points.  None if every expected gain is within the noise.
    """
    given = list(tasks)
    fresh = [task for task in given if task.fresh]
    if first := fresh or [task for task in given if task.waiting]:
        return max(first, key=lambda task: task.seconds)
    hopeful = [task for task in given if task.promising(trials)]
    return max(hopeful, key=lambda task: task.calls * task.gain(trials), default=None)


def at_least(kernel: Kernel) -> float:
    """A lower bound of the seconds of one call: its arithmetic and its traffic on this target."""
    target = kernel.target
    if target.gpu is not None:
        moved = kernel_cost.traffic(kernel.func) / target.gpu.bandwidth
        return float(max(kernel_cost.flops(kernel.func) / target.gpu.half, moved))
    facts, lanes = target.machine, target.lanes()
    arithmetic = kernel_cost.flops(kernel.func) / (2 * lanes * facts.fma_per_cycle * target.threads)
    traffic = kernel_cost.traffic(kernel.func) / facts.l3_bytes_per_cycle
    return float(max(arithmetic, traffic, 1.0) / facts.hertz)


def kernels(
    module: IRModule, context: Context, finish: str, plugins: Sequence[Path] = ()
) -> Iterator[tuple[Kernel, int]]:
    """Each unscheduled kernel of a module, with the number of its calls.

    Kernels that no rule takes are left out, and so are those with open sizes, which cannot be run
    by themselves.
    """
    called = _calls(module)
    mode = cached_weights.state(cached_weights.weight_bytes(module), context.target)
    target = cached_weights.left_by(mode, context.target)
    for var, func in module.functions_items():
        if not isinstance(func, tirx.PrimFunc) or "tirx.is_scheduled" in func.attrs:
            continue
        found = called.get(var.name_hint, [])
        rule = rule_of(func, context.rules, target)
        if found and rule is not None and _sized(func):
            weights = tuple(i for i, arg in enumerate(found[0]) if isinstance(arg, GenericConst))
            name = str(var.name_hint)
            kernel = Kernel(name, func, rule, target, finish, tuple(plugins), weights, mode)
            yield kernel, len(found)


def distinct(found: Iterable[tuple[Kernel, int]]) -> list[Task]:
    """One task for all kernels that compute the same in the same state of the caches.

    Its calls are the sum of theirs.  Kernels whose rule leaves nothing to choose are left out.
    """
    tasks: dict[tuple[str, str], Task] = {}
    for kernel, calls in found:
        key = kernel.workload.key, kernel.mode
        if key in tasks:
            tasks[key].calls += calls
            continue
        search = strategies.search_task(kernel.rule, kernel.match)
        if search.size > 1:
            named = replace(search, name="/".join(key))
            tasks[key] = Task(kernel, calls, kernel.workload, named)
    return list(tasks.values())


def of_model(tasks: Iterable[Task], found: Iterable[tuple[Kernel, int]]) -> dict[Task, int]:
    """The tasks that a model's kernels are a part of, with this model's calls."""
    known = {(task.workload.key, task.kernel.mode): task for task in tasks}
    calls: dict[Task, int] = {}
    for kernel, count in found:
        if task := known.get((kernel.workload.key, kernel.mode)):
            calls[task] = calls.get(task, 0) + count
    return calls


def gain_of(tasks: Iterable[Task]) -> float:
    """The speed-up of all kernels together from their defaults to the best points known."""
    pairs = [
        (task.calls * task.default.seconds, task.seconds)
        for task in tasks
        if task.default and task.default.seconds
    ]
    return sum(one for one, _ in pairs) / sum(other for _, other in pairs) if pairs else 1.0


def rule_of(func: PrimFunc, rules: Sequence[ScheduleRule], target: Target) -> ScheduleRule | None:
    """The first rule that takes the kernel, as in compiling; one that raises is skipped."""
    for rule in rules:
        try:
            taken = rule.match(func, target)
            if not isinstance(taken, NotApplicable):
                rule.schedule(taken, rule.default(taken, target))
                return rule
        except Exception:  # as in compiling, where a note in the report says so
            continue
    return None


def _sized(func: PrimFunc) -> bool:
    return all(isinstance(size, tirx.IntImm) for param in func.params for size in param.shape)


def _calls(module: IRModule) -> Mapping[str, list[list[Any]]]:
    """The arguments of each call of a kernel, by the kernel's name."""
    called: dict[str, list[list[Any]]] = {}
    for _, function in module.functions_items():
        if not isinstance(function, relax.Function):
            continue
        for binding in bindings_of(function):
            value: Any = getattr(binding, "value", None)
            if operator(value) in ("call_tir", "call_tir_inplace"):
                arguments = value.args[1]
                listed = list(arguments.fields) if hasattr(arguments, "fields") else [arguments]
                called.setdefault(str(value.args[0].name_hint), []).append(listed)
    return called


def name_of(task: Task) -> str:
    """The kernel and its rule, for people."""
    return f"{task.kernel.name} ({plugin.name_of(type(task.kernel.rule))})"
