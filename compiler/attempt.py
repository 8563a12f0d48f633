"""One compilation with given options: rewrite, build, verify, measure, certify."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from hybridc.compiler import memory, pipeline
from hybridc.compiler.advisers import MakeAdviser
from hybridc.compiler.artifact import Artifact, lock_of, toolchain
from hybridc.compiler.build import ALIGNMENT, build
from hybridc.compiler.certify import Terms, Trial, examine
from hybridc.compiler.clock import Clock
from hybridc.compiler.contract import Measured
from hybridc.compiler.drafts import Draft
from hybridc.compiler.errors import WrongAnswerError
from hybridc.compiler.instruments import DumpIr, NumericVerify, Timing
from hybridc.compiler.interfaces import Context, IRModule
from hybridc.compiler.monitored import Monitored
from hybridc.compiler.plans import Plan
from hybridc.compiler.report import Report, Stage


@dataclass(frozen=True)
class Outcome:
    """An artifact, how it came to be, and a sentence for each limit that it does not keep."""

    artifact: Artifact
    report: Report
    measured: Measured
    broken: tuple[str, ...]

    def decided(self, advice: tuple[str, ...], stages: Sequence[Stage], **found: Any) -> "Outcome":
        """The same with what would have helped, all the time, and what the report was lacking."""
        report = replace(self.report, stages=tuple(stages), **found)
        artifact = replace(self.artifact, report=report.lasting())
        broken = (*self.broken, *advice) if self.broken else ()
        return replace(self, report=report, artifact=artifact, broken=broken)

    def watched(self, monitored: Monitored | None) -> "Outcome":
        """The same with what a monitor saw; the artifact keeps the figures without the curves."""
        if monitored is None:
            return self
        kept = {**self.artifact.report, "monitor": monitored.brief()}
        report = replace(self.report, monitored=monitored)
        return replace(self, report=report, artifact=replace(self.artifact, report=kept))


def attempt(trial: Trial, plan: Plan, make: MakeAdviser, clock: Clock) -> Outcome:
    """Compile, verify and measure.

    Where the answer is wrong, once more with nothing that rounds differently.
    """
    return judge(draft(trial, plan, make, clock), trial, plan, make, clock)


def judge(made: Draft, trial: Trial, plan: Plan, make: MakeAdviser, clock: Clock) -> Outcome:
    """Verify and measure a draft, compiled again exactly where its answer is wrong."""
    model = trial.model
    try:
        return _examined(made, trial, plan, clock)
    except WrongAnswerError as error:
        exact = plan.exact()
        if exact == plan or plan.precision(model) != "fp32":
            raise
        note = f"compiled again by passes that round as the model does: {error}"
        again = replace(trial, model=replace(model, notes=(*model.notes, note)))
        return _examined(draft(again, exact, make, clock), again, exact, clock)


def draft(trial: Trial, plan: Plan, make: MakeAdviser, clock: Clock) -> Draft:
    """Rewrite and build; nothing is measured, but for tuning where the options ask for it."""
    model = trial.model
    advice = make(plan.target)
    context = Context(plan.target, plan.rules, advice, timeline=clock.timeline)
    module = _rewrite(trial, plan, context, clock)
    plan.check_lowered(model, context.lowered)
    if advice is not None:
        advice.check()
    with clock.stage("build"):
        built = build(module, plan.target, [region.name for region in model.regions])
    artifact = Artifact(
        name=model.name,
        inputs=model.inputs,
        outputs=model.outputs,
        target=plan.target.describe(),
        pipeline=pipeline.text(plan.steps),
        library=built.library,
        weights=built.weights,
        regions=model.regions,
        toolchain=toolchain(bool(model.regions)),
        lock=lock_of(context.kernels),
        alignment=ALIGNMENT,
    )
    return Draft(
        artifact=artifact,
        precision=plan.precision(model),
        memory=memory.usage(
            module, artifact.tensors(), model.inputs, model.outputs, plan.target.threads
        ),
        kernels=tuple(context.kernels),
        notes=tuple(context.notes),
        records=None if advice is None else advice.describe(),
    )


def _examined(made: Draft, trial: Trial, plan: Plan, clock: Clock) -> Outcome:
    model, artifact = trial.model, made.artifact
    examined = examine(artifact, trial, _terms(plan, made, clock), made.memory.peak, clock.stage)
    report = Report(
        model=model.name,
        inputs=model.inputs,
        outputs=model.outputs,
        regions=model.regions,
        target=artifact.target,
        precision=made.precision,
        pipeline=artifact.pipeline,
        notes=(*model.notes, *made.notes),
        kernels=made.kernels,
        agreement=tuple(comparison.describe() for comparison in examined.agreement),
        latency=examined.latency,
        memory=made.memory,
        stages=tuple(clock.stages),
        records=made.records,
    )
    certified = replace(artifact, report=report.lasting(), certificate=examined.certificate)
    return Outcome(certified, report, examined.measured, examined.broken)


def _terms(plan: Plan, made: Draft, clock: Clock) -> Terms:
    options = plan.options
    data = f"random, seed {options.seed}" if options.calibration is None else "calibration data"
    tolerances = (options.rtol, options.atol)
    verified = options.verify != "off"
    return Terms(
        verified, *tolerances, options.contract, data, made.precision, options.seed, options.timed
    )


def _rewrite(trial: Trial, plan: Plan, context: Context, clock: Clock) -> IRModule:
    """Run the passes; what each took becomes a stage."""
    options, timing = plan.options, Timing(clock.timeline)
    instruments: list[pipeline.Instrument] = [clock]
    if options.dump_ir is not None:
        instruments.append(DumpIr(options.dump_ir))
    if options.tuning is not None:
        from hybridc.compiler.tuning.session import TuneInside  # SQLAlchemy takes its time

        instruments.append(TuneInside(options, options.tuning, context, plan.steps, clock))
    if options.verify == "each":
        tolerances = (options.rtol, options.atol, plan.precision(trial.model))
        check = NumericVerify(trial.model, trial.feeds, trial.wanted, *tolerances)
        instruments.append(check)
    module = pipeline.run(plan.steps, trial.model.module, context, [*instruments, timing])
    clock.stages += [Stage(f"pass {text}", seconds) for text, seconds in timing.seconds]
    return module
