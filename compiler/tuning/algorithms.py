"""Measure the algorithms of an operator, before one of them goes into the model.

Where several kernels compute the same (a direct convolution, and Winograd's by each tile), each is
measured once, at its rule's default point, and with caches as the model leaves them.  The log
keeps the times as it keeps all others; packing then asks it for the fastest algorithm, and what the
model calls is tuned.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hybridc.compiler import plugin
from hybridc.compiler.configuration.plans import Options, finish
from hybridc.compiler.hardware import cached_weights
from hybridc.compiler.interfaces import Advice, Context, IRModule, Pass
from hybridc.compiler.kernel_record import Alternatives
from hybridc.compiler.log import access, keys
from hybridc.compiler.log.advice import LogAdvice
from hybridc.compiler.log.advisers import NoAdvice
from hybridc.compiler.text.units import format_duration
from hybridc.compiler.tuning import summary, tasks
from hybridc.compiler.tuning.candidates.pool import Pool
from hybridc.compiler.tuning.kernel import Kernel
from hybridc.compiler.tuning.options import Algorithms, Budget
from hybridc.compiler.tuning.progress import Update
from hybridc.compiler.tuning.tuner import Tuner

# The pass that chooses between algorithms.
PACKING = "pack-weights"
# The parameter of an algorithm's kernel that is a constant in the model.
_WEIGHT = 1
# Of the time for a tuning, the most that goes to algorithms.
_SHARE = 0.25
# How often a choice that is not that of analysis is measured again.
VISITS = 2


@dataclass(frozen=True)
class Asked(NoAdvice):
    """Remembers what it was asked to compare."""

    found: dict[tuple[str, ...], Alternatives] = field(
        default_factory=dict[tuple[str, ...], Alternatives]
    )

    def fastest(self, among: Alternatives) -> int | None:
        """Remember them."""
        self.found[among.workloads] = among
        return None


@dataclass(frozen=True)
class Preferred(NoAdvice):
    """What a log said of alternatives when it was asked."""

    fastest_of: Mapping[tuple[str, ...], int | None]

    def fastest(self, among: Alternatives) -> int | None:
        """As the log said."""
        return self.fastest_of.get(among.workloads)


@dataclass(frozen=True)
class MeasureAlgorithms:
    """An instrument that measures alternatives when the pass that chooses between them comes.

    Where the context has no advice, it gets what the log says of them.  Raises KeyboardInterrupt
    where it is interrupted; what it measured is in the log.
    """

    options: Options
    algorithms: Algorithms
    context: Context
    steps: Sequence[Pass]

    def before(self, step: Pass, module: IRModule) -> None:
        """Measure, if this is the pass and there is a choice."""
        if plugin.name_of(type(step)) != PACKING:
            return
        asked = Asked()
        step.apply(module, Context(self.context.target, self.context.rules, asked))
        if not asked.found:
            return
        start, every = time.monotonic(), list(asked.found.values())
        told = self._measured(every)
        self.algorithms.spent += time.monotonic() - start
        if self.context.advice is None:
            self.context.advice = told

    def after(self, step: Pass, before: IRModule, after: IRModule) -> None:
        """Nothing to do."""

    def _measured(self, every: Sequence[Alternatives]) -> Advice:
        """Measure what the log lacks, and ask it."""
        target, plugins = self.context.target, tuple(self.options.plugins)
        kernels = [(kernel, 1) for among in every for kernel in self._kernels(among)]
        seconds = self.algorithms.how.seconds()
        budget = Budget(0, None if seconds is None else _SHARE * seconds)
        distinct = tasks.distinct(kernels)

        def told(update: Update) -> None:
            self.options.progress(_stand(distinct, update))

        with access.open_log(self.options.log, plugins=plugins) as log:
            chosen, workers = self.algorithms.how.chosen(plugins), self.algorithms.how.workers
            advice = LogAdvice(log, keys.of_target(target), keys.of_toolchain())
            with Pool(target.threads, workers, timeline=self.context.timeline) as pool:
                tuner = Tuner(distinct, log, chosen, pool, budget, told)
                tuned = tuner.run()
                if tuned.interrupted:
                    raise KeyboardInterrupt(f"{tuned.measured} measurements are kept in {log.name}")
                self._confirm(every, advice, tuner)
            fastest = {among.workloads: advice.fastest(among) for among in every}
            known = {task.workload.key: task.seconds for task in distinct if task.best}
        changes = [_told(among, fastest[among.workloads], known) for among in every]
        if any(changes) and tuned.disturbed:
            changes.append(f"of the algorithms, {summary.disturbed(tuned.disturbed)}")
        self.algorithms.notes += filter(None, changes)
        self.context.notes += filter(None, changes)
        return Preferred(fastest)

    def _confirm(self, every: Sequence[Alternatives], advice: LogAdvice, tuner: Tuner) -> None:
        """Measure again, in turns, what seems faster than the choice of analysis, and that choice.

        A guest of the host that comes for a second makes any of them the fastest, once.
        """
        tasks = {task.workload.key: task for task in tuner.tasks}
        for _ in range(VISITS):
            pairs = [
                [tasks[among.workloads[0]], tasks[among.workloads[fastest]]]
                for among in every
                if (fastest := advice.fastest(among))
            ]
            doubtful = [task for pair in pairs for task in pair if tuner.visits(task) <= VISITS]
            if not doubtful:
                break
            tuner.confirm(doubtful)

    def _kernels(self, among: Alternatives) -> list[Kernel]:
        plugins = tuple(self.options.plugins)
        target = cached_weights.left_by(among.mode, self.context.target)
        return [
            Kernel(
                f"{among.name}: {algorithm}",
                func,
                rule,
                target,
                finish(self.steps),
                plugins,
                (_WEIGHT,),
                among.mode,
            )
            for algorithm, func in zip(among.algorithms, among.kernels, strict=True)
            if (rule := tasks.rule_of(func, self.context.rules, target))
        ]


def _stand(distinct: Sequence[tasks.Task], update: Update) -> str:
    """How many algorithms have been measured, the one that was just told of among them."""
    known = sum(
        task.default is not None or tasks.name_of(task) == update.kernel for task in distinct
    )
    return f"algorithms {known}/{len(distinct)}: {update.kernel}"


def _told(among: Alternatives, fastest: int | None, known: Mapping[str, float]) -> str:
    """What was measured where something else than analysis thought is fastest."""
    if not fastest:
        return ""
    times = [
        f"{algorithm} {format_duration(known[workload])}"
        for algorithm, workload in zip(among.algorithms, among.workloads, strict=True)
        if workload in known
    ]
    taken, analysed = among.algorithms[fastest], among.algorithms[0]
    return f"{among.name}: {taken} instead of {analysed} ({', '.join(times)})"
