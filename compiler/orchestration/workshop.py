"""Makes the candidates of a cascade: compiled here or in processes, or kept by an earlier call.

An artifact that equals one that was examined before is not measured again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from hybridc.compiler.assurance import certify, looks, timing
from hybridc.compiler.assurance.contract import Measured
from hybridc.compiler.assurance.terms import Trial
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options, Plan
from hybridc.compiler.errors import HybridcError
from hybridc.compiler.log.advisers import MakeAdviser
from hybridc.compiler.measurement import measure, profile
from hybridc.compiler.measurement.clock import Clock
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.model import Feed
from hybridc.compiler.orchestration import digests, resume, side_by_side
from hybridc.compiler.orchestration.attempt import Outcome, draft, judge
from hybridc.compiler.orchestration.candidates import Means
from hybridc.compiler.orchestration.drafts import Draft
from hybridc.compiler.orchestration.expected_gains.facts import facts_of
from hybridc.compiler.orchestration.expected_gains.gains import Facts
from hybridc.compiler.orchestration.resume import Kept
from hybridc.compiler.orchestration.side_by_side import Job
from hybridc.compiler.quantization import operator_times, sensitivity
from hybridc.compiler.quantization.operator_times import Seconds
from hybridc.compiler.reporting.report import TUNED
from hybridc.compiler.runtime.session import InferenceSession

_TURNS = 2.0  # seconds in which two outcomes are compared


@dataclass
class Workshop:
    """Makes candidates of one model; `kept` holds the results of an interrupted call, if any.

    `tunings` collects the notes of all tunings, whatever became of their stages.
    """

    plan: Plan
    trial: Trial
    make: MakeAdviser
    clock: Clock
    kept: Kept | None = None
    tunings: list[str] = field(default_factory=list[str])
    _drafts: dict[str, Draft | HybridcError] = field(
        default_factory=dict[str, Draft | HybridcError]
    )
    _examined: dict[str, Outcome] = field(default_factory=dict[str, Outcome])
    _unkept: list[tuple[Options, Outcome]] = field(default_factory=list[tuple[Options, Outcome]])

    def means(self) -> Means[Outcome]:
        """The functions below, as a course takes them."""
        return Means(
            attempt=self.attempt,
            prepare=self.prepare,
            facts=self.facts,
            kernels=self.kernels,
            sensitise=self.sensitise,
            in_turns=self.in_turns,
            retimed=self.retimed,
        )

    def attempt(self, options: Options) -> Outcome:
        """Compile, verify and measure with these options; raises whatever fails."""
        timeline = self.clock.timeline
        with timeline.span(f"attempt in {options.dtype}", "attempt", dtype=options.dtype):
            return self._attempt(options)

    def _attempt(self, options: Options) -> Outcome:
        self.keep()
        if self.kept is not None and (known := self.kept.load(options)):
            self._hear(known.report.notes)
            return self._examined.setdefault(digests.of_artifact(known.artifact), known)
        plan, start = plans.plan(options), self.clock.time_budget.now()
        made = self._drafts.pop(_name(options), None)
        if isinstance(made, HybridcError):
            raise made
        if made is None:
            made = draft(self.trial, plan, self.make, self.clock)
        self._hear(made.notes)
        digest = digests.of_artifact(made.artifact)
        if digest not in self._examined:
            found = judge(made, self.trial, plan, self.make, self.clock)
            found = replace(found, seconds=self.clock.time_budget.now() - start)
            self._examined[digest] = found
            self._unkept.append((options, found))
        return self._examined[digest]

    def _hear(self, notes: Sequence[str]) -> None:
        self.tunings += [note for note in notes if note.startswith(TUNED)]

    def keep(self) -> None:
        """Save the results so far for a later call.

        This is called before each long step, not after each result: the last result of a
        compilation need not be saved.
        """
        while self._unkept:
            options, found = self._unkept.pop()
            if self.kept is not None:
                self.kept.save(options, found)

    def interrupted(self, error: KeyboardInterrupt) -> KeyboardInterrupt:
        """Save the results so far, and say in the interruption how many a later call can use."""
        self.keep()
        count = 0 if self.kept is None else self.kept.count()
        if not count:
            return error
        stages = "the stage that was" if count == 1 else f"the {count} stages that were"
        holds = "is" if count == 1 else "are"
        return KeyboardInterrupt(
            f"{stages} measured {holds} kept, and the same call continues from there"
        )

    def prepare(self, given: Sequence[Options]) -> None:
        """Compile with these options in parallel; those that no process can be given are left."""
        from tvm.ir import save_json

        self.keep()
        jobs = [Job(each, told) for each in given if (told := side_by_side.portable(each))]
        if not jobs:
            return
        steering = jobs[0].options.steering
        count = side_by_side.workers(steering.workers, len(jobs))
        seconds = self.clock.time_budget.left
        with self.clock.stage(f"build {len(jobs)} stages in {count} processes"):
            found = side_by_side.drafts(
                self.trial,
                save_json(self.trial.model.module),
                jobs,
                count,
                side_by_side.LONGEST if seconds is None else seconds,
            )
        self._drafts |= {_name(j.options): made for j, made in zip(jobs, found, strict=True)}

    def facts(self, found: Outcome) -> Facts | None:
        """The facts that predictions are based on; None if no time is left."""
        self.keep()
        if self.clock.time_budget.left == 0.0:
            return None
        with self.clock.stage("analyse"):
            return facts_of(found, self.trial, self.plan)

    def kernels(self, found: Outcome) -> Seconds:
        """Seconds of a call of each kernel, by its FLOPs; empty if no time is left."""
        self.keep()
        threads = self.plan.target.threads
        if self.clock.time_budget.left == 0.0:
            return {}
        with self.clock.stage("time kernels"):
            session = InferenceSession(found.artifact, threads)
            return operator_times.by_flops(profile.kernels(session, self.trial.feeds[0]))

    def sensitise(self, found: Outcome) -> None:
        """Measure the effect of each product in 8 bits, if there are any and time is left."""
        if found.sensitive is not None and self.clock.time_budget.left != 0.0:
            self.keep()
            with self.clock.stage("measure sensitivity"):
                sensitivity.measured(found.sensitive)

    def in_turns(self, one: Outcome, other: Outcome) -> tuple[Measured, Measured] | None:
        """Time two outcomes by alternating their calls; None if no time is left."""
        contract, left = self.plan.options.contract, self.clock.time_budget.left
        if left is not None and left < _TURNS:
            return None
        with self.clock.stage("compare in turns"):
            calls = [self._call(one), self._call(other)]
            first, second = map(Samples, measure.in_turns(calls, seconds=_TURNS))
        return (
            replace(one.measured, **certify.rates(first, contract)),
            replace(other.measured, **certify.rates(second, contract)),
        )

    def retimed(self, found: Outcome) -> Outcome:
        """The same outcome, measured again if there is time left."""
        contract, left = self.plan.options.contract, self.clock.time_budget.left
        if left == 0.0:
            return found
        session = InferenceSession(found.artifact, self.plan.target.threads)
        with self.clock.stage("measure"):
            samples = timing.timed(session, self._feed(session), contract, left, looks.ANEW)
        return found.retimed(samples, contract)

    def _call(self, found: Outcome) -> Callable[[], object]:
        session = InferenceSession(found.artifact, self.plan.target.threads)
        feed = self._feed(session)
        return lambda: session.run(None, feed)

    def _feed(self, session: InferenceSession) -> Feed:
        """The sample that all candidates are timed on."""
        return self.trial.slowest.of(session, self.trial.feeds, self.clock.time_budget.left)


def _name(options: Options) -> str:
    return repr(sorted(resume.described(options).items()))
