"""One tuning from its options to its result: by `hybridc tune`, or inside a compilation."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hybridc.compiler import plugin
from hybridc.compiler.building import link
from hybridc.compiler.building.unscheduled import Unscheduled
from hybridc.compiler.configuration.plans import SCHEDULING, Options
from hybridc.compiler.errors import LogError, described
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.log import access
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.measurement.clock import Clock
from hybridc.compiler.model import Model
from hybridc.compiler.monitoring.monitored import Monitored
from hybridc.compiler.monitoring.timeline import Timeline
from hybridc.compiler.reporting.report import TUNED
from hybridc.compiler.text.units import format_duration
from hybridc.compiler.tuning import faulty_defaults, imported, on_gpus, summary, tasks
from hybridc.compiler.tuning.candidates.pool import Pool
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.on_gpus import Ending
from hybridc.compiler.tuning.options import Algorithms, Budget, Caches, Tuning
from hybridc.compiler.tuning.prediction import cost_model
from hybridc.compiler.tuning.progress import Update
from hybridc.compiler.tuning.result import Tuned
from hybridc.compiler.tuning.tuner import LATE, Tuner
from hybridc.compiler.tuning.whole_model.in_model import InModel, Placed

# Of the time for a tuning, what goes to kernels alone.
_ALONE = 0.85
_TOO_LITTLE = (
    "nothing was measured: {:.0f} s went to starting processes and to the answers that candidates"
    " are compared with; give more time, or use a less busy machine"
)


@dataclass(frozen=True)
class TuningOutcome:
    """The result of a tuning; `kernels` are as `summary.kernels` gives them.

    `models` are the gains measured in whole models, if they could be run; `notes` say what limited
    the tuning.
    """

    tuned: Tuned
    kernels: Sequence[dict[str, Any]]
    log: str
    models: tuple[Placed, ...] = ()
    notes: tuple[str, ...] = ()
    monitored: Monitored | None = None

    def to_json(self) -> dict[str, Any]:
        """The outcome as JSON data; times in seconds of one call."""
        data = summary.to_json(self.tuned, self.kernels, self.log)
        seen = {} if self.monitored is None else {"monitor": self.monitored.to_json()}
        models = [asdict(each) for each in self.models]
        return {**data, "models": models, "notes": list(self.notes), **seen}

    def text(self, explain: bool = False) -> str:
        """The outcome as a table and some sentences."""
        told = summary.text(self.tuned, self.kernels, self.log, explain)
        seen = [self.monitored.text()] if self.monitored else []
        return "\n".join([told, *map(str, self.models), *self.notes, *seen])


def tune(
    models: Iterable[Unscheduled],
    options: Options,
    how: Tuning,
    timeline: Timeline | None = None,
    algorithms: Algorithms | None = None,
) -> TuningOutcome:
    """Tune the kernels of models into the log that the options name.

    The time that measuring `algorithms` took, while the models were made, is part of the budget.
    Every request to a building or measuring process is recorded on the timeline.

    After Ctrl-C the outcome has the measurements so far, and `Tuned.interrupted` is set.  Raises
    LogError, before the first model is loaded, if the log cannot be written.
    """
    link.check()
    plugins = tuple(options.plugins)
    strategy = how.chosen(plugins)
    with access.open_log(options.log, plugins=plugins) as opened:
        if opened.readonly:
            raise LogError(f"tuning log {opened.name} is read-only, and a tuning writes to it")
        found = [(model, _kernels(model, how.caches, plugins)) for model in models]
        every = [each for _, kernels in found for each in kernels]
        left = algorithms.left if algorithms else how
        whole, start = Budget(how.trials, left.seconds()), time.monotonic()
        tuned = _searched(
            every, opened, options, how, replace(whole, seconds=_most(whole)), timeline
        )
        inside = partial(InModel, opened, strategy.seed, options.progress, start + whole.limit)
        placed: list[Placed] = []
        notes = [*_notes(tuned, opened), *(algorithms.notes if algorithms else ())]
        try:
            for model, kernels in () if tuned.interrupted else found:
                placed += _timed(inside(model, tasks.of_model(tuned.tasks, kernels)), notes)
        except KeyboardInterrupt:
            tuned = replace(tuned, interrupted=True, reason="interrupted")
        rows = summary.kernels(tuned, opened)
        return TuningOutcome(tuned, rows, opened.name, tuple(placed), tuple(notes))


def _timed(inside: InModel, notes: list[str]) -> list[Placed]:
    """The gains measured in the model; if it cannot be built or run, a note says why."""
    try:
        placed = inside.compare()
        notes += inside.notes
        return placed
    except LogError:
        raise
    except Exception as error:  # the measurements of its kernels alone are in the log, and count
        notes.append(f"kernels of {inside.model.model.name} not timed in it: {described(error)}")
        return []


def _searched(  # noqa: PLR0913, PLR0917 - of `tune`, which names them
    kernels: Sequence[tuple[Kernel, int]],
    opened: TuningLog,
    options: Options,
    how: Tuning,
    budget: Budget,
    timeline: Timeline | None,
) -> Tuned:
    """Tune kernels by themselves; if they are for a GPU, on all GPUs of this host."""
    plugins = tuple(options.plugins)
    strategy, distinct = how.chosen(plugins), tasks.distinct(kernels)
    threads = distinct[0].kernel.target.threads if distinct else 1
    gpu, *others = on_gpus.names(distinct[0].kernel.target) if distinct else (None,)

    def told(update: Update) -> None:
        options.progress(line(update, budget))

    def pool_on(name: str | None) -> Pool:
        return Pool(threads, how.workers, timeline=timeline, gpu=name)

    def elsewhere(name: str, ending: Ending) -> int:
        with access.open_log(options.log, plugins=plugins) as log, pool_on(name) as pool:
            tuner = Tuner(tasks.distinct(kernels), log, strategy, pool, budget)
            ending.tell(pool.end_at)
            return tuner.run().measured

    with (
        on_gpus.beside([str(name) for name in others], elsewhere) as more,
        pool_on(gpu) as pool,
    ):
        tuned = Tuner(distinct, opened, strategy, pool, budget, told).run()
    return replace(tuned, measured=tuned.measured + sum(more))


def _most(budget: Budget) -> float | None:
    """Seconds for kernels alone; the rest is for their models."""
    return None if budget.seconds is None else _ALONE * budget.seconds


def _kernels(
    model: Unscheduled, caches: Caches, plugins: tuple[Path, ...]
) -> list[tuple[Kernel, int]]:
    """A model's kernels with their calls, with caches as it leaves them (`auto`) or as given."""
    found = tasks.kernels(model.module, model.context, model.finish, plugins)
    if caches == "auto":
        return list(found)
    return [(replace(kernel, mode=caches), calls) for kernel, calls in found]


def _notes(tuned: Tuned, log: TuningLog) -> list[str]:
    found = faulty_defaults.told(tuned, log)
    if not tuned.interrupted:
        found.append(imported.useless(tuned.tasks, log))
    if tuned.reason == LATE and not tuned.measured:
        found.append(_TOO_LITTLE.format(tuned.seconds))
    elif tuned.measured:
        found.append(cost_model.note(tuned.tasks[0].kernel.target))
    return [*filter(None, found)]


def line(update: Update, budget: Budget) -> str:
    """`12/96 gain 1.043, 84 left, 120 s at most: conv (conv2d) 410 us`."""
    best = format_duration(update.best) if update.best else "-"
    told = f"{update.done}/{update.trials} gain {update.gain:.3f}, {update.rest} left"
    ends = [seconds for seconds in (update.left, _rest(update, budget)) if seconds is not None]
    if ends:
        told += f", {max(0.0, min(ends)):.0f} s at most"
    return f"{told}: {update.kernel} {best}"


def _rest(update: Update, budget: Budget) -> float | None:
    return None if budget.seconds is None else budget.seconds - update.seconds


@dataclass(frozen=True)
class TuneInside:
    """An instrument that tunes a module's kernels before the pass that schedules them.

    Raises KeyboardInterrupt if the tuning is interrupted; its measurements are in the log.
    """

    options: Options
    algorithms: Algorithms
    model: Model
    context: Context
    steps: Sequence[Pass]
    clock: Clock

    def before(self, step: Pass, module: IRModule) -> None:
        """Tune, if this is the pass."""
        if plugin.name_of(type(step)) != SCHEDULING:
            return
        steps = self.steps[self.steps.index(step) :]
        unscheduled = Unscheduled(self.model, module, self.context, steps)
        with self.clock.stage("tune"):
            how, timeline = self.algorithms.how, self.clock.timeline
            found = tune([unscheduled], self.options, how, timeline, self.algorithms)
        tuned = found.tuned
        if tuned.interrupted:
            raise KeyboardInterrupt
        if tuned.tasks:
            told = f"{TUNED} {tuned.measured} measurements: {tuned.reason}"
            self.context.notes.append(told)
        self.context.notes += map(str, found.models)
        self.context.notes += [note for note in found.notes if note not in self.context.notes]
        self.context.notes += [f"not tuned: {reason}" for reason in tuned.skipped]

    def after(self, step: Pass, before: IRModule, after: IRModule) -> None:
        """Nothing to do."""
