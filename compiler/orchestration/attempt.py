"""One compilation with given options: rewrite, build, verify, measure, certify."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance import certificate, certify
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.assurance.terms import Terms, Trial
from hybridc.compiler.assurance.verify import How
from hybridc.compiler.building.assemble import assemble, generate
from hybridc.compiler.building.build import Built
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Plan
from hybridc.compiler.cuda.resources import Launch, table
from hybridc.compiler.errors import PassError, WrongAnswerError
from hybridc.compiler.instruments import DumpIr, NumericVerify, Timing
from hybridc.compiler.interfaces import Context, IRModule
from hybridc.compiler.ir import memory
from hybridc.compiler.log.advisers import MakeAdviser
from hybridc.compiler.measurement.clock import Clock
from hybridc.compiler.measurement.measure import Samples
from hybridc.compiler.model import Model
from hybridc.compiler.monitoring.monitored import Monitored
from hybridc.compiler.offload import whole_model
from hybridc.compiler.offload.backend import OWN
from hybridc.compiler.offload.choice import MeasureBackends
from hybridc.compiler.orchestration.drafts import Draft
from hybridc.compiler.quantization import narrowing, sensitivity
from hybridc.compiler.quantization.narrowing import Broken
from hybridc.compiler.quantization.sensitivity import ImpreciseError, Lowered
from hybridc.compiler.reporting.report import BACKENDS, Report, Stage
from hybridc.compiler.target import Target
from hybridc.compiler.tuning.options import Algorithms

# Another number in the certificate may move what follows it by one alignment, and then no more.
_SETTLED = 4


@dataclass(frozen=True)
class Outcome:
    """An artifact, its report and measurements, and a sentence for each limit that it breaks.

    `sensitive` are the products of a quantised model, with the error that each causes.  `seconds`
    is how long it took to make (0 if that was not measured), and `left` what remains of the budget
    (None if there is none).
    """

    artifact: Artifact
    report: Report
    measured: Measured
    broken: tuple[str, ...]
    sensitive: Lowered | None = None
    seconds: float = 0.0
    left: float | None = None

    def decided(self, advice: tuple[str, ...], stages: Sequence[Stage], **found: Any) -> "Outcome":
        """The same with advice (if a limit is broken), all stages, and further report fields."""
        report = replace(self.report, stages=tuple(stages), **found)
        artifact = replace(self.artifact, report=report.lasting())
        broken = (*self.broken, *advice) if self.broken else ()
        return replace(self, report=report, artifact=artifact, broken=broken)

    def retimed(self, samples: Samples, contract: Contract) -> "Outcome":
        """The same with new timings of its calls."""
        measured = replace(self.measured, **certify.rates(samples, contract))
        certified = certificate.retimed(self.artifact.certificate, measured, samples, contract)
        report = replace(self.report, latency=samples)
        artifact = replace(self.artifact, report=report.lasting(), certificate=certified)
        broken = tuple(contract.judge(measured))
        return replace(self, artifact=artifact, report=report, measured=measured, broken=broken)

    def sized(self, contract: Contract) -> "Outcome":
        """The same with the size of the file, which includes report and certificate.

        The certificate contains the size, so it is written again until the size stays the same.
        """
        if contract.max_size is None:
            return self
        advice = self.broken[len(contract.judge(self.measured)) :]
        found = self
        for _ in range(_SETTLED):
            size = found.artifact.size()
            if size == found.measured.size:
                break
            measured = replace(found.measured, size=size)
            certified = certificate.judged(found.artifact.certificate, measured, contract)
            artifact = replace(found.artifact, certificate=certified)
            found = replace(found, artifact=artifact, measured=measured)
        return replace(found, broken=(*contract.judge(found.measured), *advice))

    def watched(self, monitored: Monitored | None) -> "Outcome":
        """The same with a monitor's samples; the artifact keeps the figures without the curves."""
        if monitored is None:
            return self
        kept = {**self.artifact.report, "monitor": monitored.brief()}
        report = replace(self.report, monitored=monitored)
        return replace(self, report=report, artifact=replace(self.artifact, report=kept))


def attempt(trial: Trial, plan: Plan, make: MakeAdviser, clock: Clock) -> Outcome:
    """Compile, verify and measure.

    If the answer is wrong, compile again with passes that round as the model does.
    """
    return judge(draft(trial, plan, make, clock), trial, plan, make, clock)


def judge(made: Draft, trial: Trial, plan: Plan, make: MakeAdviser, clock: Clock) -> Outcome:
    """Verify and measure a draft; if its answer is wrong, compile it again.

    A quantised model then has fewer products in 8 bits, and others are compiled exactly.
    """
    model = trial.model
    try:
        return _examined(made, trial, plan, clock)
    except ImpreciseError as error:
        with clock.stage("measure sensitivity"):
            sensitivity.measured(error.lowered)
        return _narrowed(error, plan, lambda each: _once(trial, each, make, clock))
    except WrongAnswerError as error:
        exact = plan.exact()
        if exact == plan or plan.precision(model) != "fp32":
            raise
        note = f"compiled again by passes that round as the model does: {error}"
        again = replace(trial, model=replace(model, notes=(*model.notes, note)))
        return _once(again, exact, make, clock)


def _once(trial: Trial, plan: Plan, make: MakeAdviser, clock: Clock) -> Outcome:
    return _examined(draft(trial, plan, make, clock), trial, plan, clock)


def _narrowed(error: ImpreciseError, plan: Plan, attempt: Callable[[Plan], Outcome]) -> Outcome:
    """The same without quantising the most sensitive products, so that the answer is right."""
    broken = Broken(Measured(), error.lowered)
    found = narrowing.narrow(plan.options, broken, lambda changed: attempt(plans.plan(changed)))
    if found is None:
        raise error
    note = f"narrowed, since all in {plan.options.dtype} was wrong ({error}): {found.told}"
    report = replace(found.best.report, notes=(*found.best.report.notes, note))
    return replace(found.best, report=report)


def draft(trial: Trial, plan: Plan, make: MakeAdviser, clock: Clock) -> Draft:
    """Rewrite and build.

    Nothing is measured except by tuning and for backends, if the options ask for these.  Libraries
    that are faster kernel by kernel are used only if the whole model is faster with them.
    """
    made = _drafted(trial, plan, make, clock)
    if not plan.backends or plan.options.lock is not None:
        return made
    own = plans.plan(replace(plan.options, backends=(OWN,)))
    own = own.exact() if plan == plan.exact() else own
    if not made.artifact.offloads:
        plain = replace(made.artifact, pipeline=pipeline.text(own.steps))
        note = f"{BACKENDS} no library is faster at a kernel of this model"
        return replace(made, artifact=plain, notes=(*made.notes, note))
    return _faster(made, _drafted(trial, own, make, clock), trial, plan, clock)


def _faster(made: Draft, plain: Draft, trial: Trial, plan: Plan, clock: Clock) -> Draft:
    """The draft with libraries or the one without, whichever is the faster model."""
    with clock.stage("compare with our own kernels"):
        faster, told = whole_model.is_faster(
            made.artifact, plain.artifact, trial.feeds[0], plan.target.threads
        )
    kept = () if faster else tuple(note for note in made.notes if note.startswith(BACKENDS))
    found = made if faster else plain
    return replace(found, notes=(*found.notes, *kept, f"{BACKENDS} {told}"))


def _drafted(trial: Trial, plan: Plan, make: MakeAdviser, clock: Clock) -> Draft:
    model = trial.model
    advice = make(plan.target)
    ranges = trial.data.calibration if trial.data else None
    context = Context(plan.target, plan.rules, advice, ranges, timeline=clock.timeline)
    module = _rewrite(trial, plan, context, make, clock)
    plan.check_lowered(model, context)
    if advice is not None:
        advice.check()
    with clock.stage("build"):
        built = generate(model, module, context)
    written, plugins = pipeline.text(plan.steps), tuple(plan.options.plugins)
    artifact = assemble(model, built, context, written, plugins)
    with clock.stage("count memory"):
        weights, threads = artifact.tensors(), plan.target.threads
        used = memory.usage(module, weights, model.inputs, model.outputs, threads)
    return Draft(
        artifact=artifact,
        precision=plan.precision(model),
        products=context.lowered.total(),
        memory=used,
        kernels=tuple(context.kernels),
        notes=tuple(context.notes),
        records=None if advice is None else advice.describe(),
        sensitive=context.sensitive,
        idle=tuple(sorted(context.idle)),
        resources=_resources(context, built, plan.target),
    )


def lowered(trial: Trial, plan: Plan) -> Lowered:
    """What quantisation lowers in a model, found by running the passes up to it; nothing is built.

    Raises PassError if nothing is quantised.
    """
    names = [plugin.name_of(type(step)) for step in plan.steps]
    ranges = trial.data.calibration if trial.data else None
    context = Context(plan.target, plan.rules, None, ranges)
    if plans.CALIBRATING in names:
        steps = plan.steps[: names.index(plans.CALIBRATING) + 1]
        pipeline.run(steps, trial.model.module, context)
    found: Lowered | None = context.sensitive
    if found is None:
        raise PassError(f"no pass quantises {trial.model.name}")
    return found


def _resources(context: Context, built: Built, target: Target) -> tuple[Mapping[str, Any], ...]:
    """The GPU resources of each launch; empty for a CPU."""
    if target.gpu is None:
        return ()
    made = [Launch.read(told) for record in context.kernels for told in record.launches]
    return tuple(table(made, built.usages, target.gpu))


def _examined(made: Draft, trial: Trial, plan: Plan, clock: Clock) -> Outcome:
    trial = trial.unseen() if plan.calibrates else trial
    model, terms = trial.model, _terms(trial, plan, made, clock)
    if terms.demanding or trial.wanted:
        made.check_room()
    in_time = partial(clock.time_budget.check, "sensitivity is measured")
    sensitive = made.sensitive and made.sensitive.on(trial.feeds, model.inputs, in_time)
    try:
        examined = certify.examine(made.artifact, trial, terms, made.memory.peak, clock.stage)
    except WrongAnswerError as error:
        if sensitive is None:
            raise
        raise ImpreciseError(str(error), sensitive) from error
    notes = (*model.notes, *made.notes, *examined.notes, *_by_host(model, plan.target))
    agreement = [comparison.describe() for comparison in examined.agreement]
    report = made.report(model, notes, agreement, examined.latency, clock.stages)
    certified = replace(made.artifact, report=report.lasting(), certificate=examined.certificate)
    outcome = Outcome(certified, report, examined.measured, examined.broken, sensitive)
    return outcome.sized(terms.contract)


def _by_host(model: Model, target: Target) -> tuple[str, ...]:
    """A note on regions of a model for a GPU: they cost copies to the host and back."""
    if target.gpu is None or not model.regions:
        return ()
    count = len(model.regions)
    told = "a region is" if count == 1 else f"{count} regions are"
    return (f"{told} computed on the host: tensors are copied there and back, without graphs",)


def _terms(trial: Trial, plan: Plan, made: Draft, clock: Clock) -> Terms:
    options, data = plan.options, trial.data
    return Terms(
        options.verify != "off",
        How(options.rtol, options.atol, made.precision, made.products),
        options.contract,
        data.told if data else "",
        options.seed,
        options.timed,
        clock.time_budget,
        calibrated=data.calibrated if data and plan.calibrates else None,
    )


def _rewrite(
    trial: Trial, plan: Plan, context: Context, make: MakeAdviser, clock: Clock
) -> IRModule:
    """Run the passes; the time of each becomes a stage of the report."""
    options, timing = plan.options, Timing(clock.timeline)
    instruments: list[pipeline.Instrument] = [clock]
    if options.dump_ir is not None:
        instruments.append(DumpIr(options.dump_ir))
    if options.tuning is not None:
        from hybridc.compiler.tuning.algorithms import MeasureAlgorithms
        from hybridc.compiler.tuning.session import TuneInside  # SQLAlchemy takes its time

        algorithms = Algorithms(options.tuning)
        instruments.append(MeasureAlgorithms(options, algorithms, context, plan.steps))
        instruments.append(TuneInside(options, algorithms, trial.model, context, plan.steps, clock))
    if plan.backends:
        instruments.append(MeasureBackends(plan, context, make, clock))
    if options.verify == "each":
        how = How(options.rtol, options.atol, plan.precision(trial.model))
        tried = trial.unseen() if plan.calibrates else trial
        check = NumericVerify(trial.model, tried.feeds, tried.wanted, how, context.lowered)
        instruments.append(check)
    module = pipeline.run(plan.steps, trial.model.module, context, [*instruments, timing])
    clock.stages += [Stage(f"pass {text}", seconds) for text, seconds in timing.seconds]
    return module
