"""From a model to an artifact: load, rewrite, build, verify, measure, certify.

`compile` is the public call; `compile_source` and `compile_model` also give the report and what
the contract says, where `compile` would raise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from hybridc.compiler import calibration, cascade, frontend, memory, pipeline, plans, plugin
from hybridc.compiler.advisers import MakeAdviser, adviser
from hybridc.compiler.artifact import Artifact, lock_of, toolchain
from hybridc.compiler.build import ALIGNMENT, build
from hybridc.compiler.calibration import Data, Feeds
from hybridc.compiler.certify import Terms, Trial, examine
from hybridc.compiler.clock import Clock
from hybridc.compiler.contract import Contract, Measured
from hybridc.compiler.errors import ContractError, InputError, WrongAnswerError
from hybridc.compiler.instruments import DumpIr, NumericVerify, Timing
from hybridc.compiler.interfaces import Context, IRModule
from hybridc.compiler.model import Array, Model
from hybridc.compiler.plans import NearHits, Options, Plan, Verify
from hybridc.compiler.report import Decision, Report, Stage
from hybridc.compiler.target import Target
from hybridc.compiler.tuning.plan import Tuning


@dataclass(frozen=True)
class Outcome:
    """An artifact, how it came to be, and a sentence for each limit that it does not keep."""

    artifact: Artifact
    report: Report
    measured: Measured
    broken: tuple[str, ...]

    def decided(
        self, decisions: tuple[Decision, ...], advice: tuple[str, ...], stages: Sequence[Stage]
    ) -> "Outcome":
        """The same with the decisions that led to it, what would have helped, and all the time."""
        report = replace(self.report, decisions=decisions, stages=tuple(stages))
        artifact = replace(self.artifact, report=report.lasting())
        broken = (*self.broken, *advice) if self.broken else ()
        return replace(self, report=report, artifact=artifact, broken=broken)


def compile(  # noqa: A001, PLR0913 - the public call; each is an option of `hybridc compile`
    source: Any,
    *,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    example_inputs: tuple[Any, ...] | None = None,
    target: str = "cpu",
    threads: int | None = None,
    contract: Contract | None = None,
    dtype: str = "auto",
    pipeline: str = "default",
    plugins: Sequence[Path] = (),
    verify: Verify = "end",
    rtol: float | None = None,
    atol: float | None = None,
    calibration: Data | Path | None = None,
    seed: int = 0,
    exact: bool = False,
    log: str | None = None,
    near: NearHits = "tools",
    frozen: bool = False,
    lock: Path | None = None,
    tuning: Tuning | None = None,
    fallback: bool = True,
    keep_best: bool = False,
) -> Artifact:
    """Compile a model for a target.

    `source` is a path (`.onnx`, `.pt2`), an `onnx.ModelProto`, a `torch.nn.Module` with
    `example_inputs`, or an `ExportedProgram`; `shapes` sizes open dimensions by input name.
    The other options are those of `Options`.  Raises HybridcError: ModelError for a model that
    cannot be compiled, WrongAnswerError where the answer differs from the reference,
    ContractError where the contract does not hold, unless `keep_best` is set, and
    MissingRecordError where `frozen` or a `lock` lacks a kernel.
    """
    given: dict[str, Any] = {**locals(), "contract": contract or Contract()}
    options = Options(
        **{each.name: given[each.name] for each in fields(Options) if each.name in given}
    )
    outcome = compile_source(source, options, shapes, example_inputs)
    if outcome.broken and not keep_best:
        raise ContractError("; ".join(outcome.broken))
    return outcome.artifact


def compile_source(
    source: Any,
    options: Options,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    example_inputs: tuple[Any, ...] | None = None,
) -> Outcome:
    """Load a model and compile it; all that may be wrong beside it is said before it is touched."""
    plans.check(options)
    with adviser(options) as make:
        plan, clock = plans.plan(options), Clock(options.progress)
        with clock.stage("load"):
            model = frontend.load(
                source,
                shapes=shapes or {},
                example_inputs=example_inputs,
                fallback=options.fallback,
            )
        return _compile(model, plan, make, clock)


def unscheduled(
    source: Any, options: Options, shapes: Mapping[str, tuple[int, ...]] | None = None
) -> tuple[IRModule, Context, str]:
    """Load a model and run the passes before the kernels are scheduled.

    Returns the module, the context, and as text the passes that are left.  Raises InputError where
    the pipeline schedules nothing.
    """
    plan, clock = plans.plan(options), Clock(options.progress)
    names = [plugin.name_of(type(step)) for step in plan.steps]
    if plans.SCHEDULING not in names:
        raise InputError(f"there is nothing to tune without the pass {plans.SCHEDULING}")
    at = names.index(plans.SCHEDULING)
    with clock.stage("load"):
        model = frontend.load(source, shapes=shapes or {}, fallback=options.fallback)
    context = Context(plan.target, plan.rules)
    module = pipeline.run(plan.steps[:at], model.module, context, [clock])
    return module, context, plans.finish(plan.steps)


def compile_model(model: Model, options: Options) -> Outcome:
    """Compile a model that a frontend has loaded."""
    with adviser(options) as make:
        return _compile(model, plans.plan(options), make, Clock(options.progress))


def _compile(model: Model, plan: Plan, make: MakeAdviser, clock: Clock) -> Outcome:
    """Apply the stages that the contract takes; each is compiled from the model anew."""
    options = plan.options
    feeds = _feeds(model, plan)
    wanted: list[list[Array]] = []
    if options.verify != "off" or options.contract.min_accuracy:
        with clock.stage("reference"):
            wanted = [model.reference(feed) for feed in feeds]
    trial = Trial(model, feeds, wanted)
    found = cascade.run(
        options, lambda changed: _attempt_right(trial, plans.plan(changed), make, clock)
    )
    return found.best.decided(found.decisions, found.advice, clock.stages)


def _attempt_right(trial: Trial, plan: Plan, make: MakeAdviser, clock: Clock) -> Outcome:
    """Compile; where the answer is wrong, once more with nothing that rounds differently."""
    model = trial.model
    try:
        return _attempt(trial, plan, make, clock)
    except WrongAnswerError as error:
        exact = plan.exact()
        if exact == plan or plan.precision(model) != "fp32":
            raise
        note = f"compiled again by passes that round as the model does: {error}"
        retry = replace(model, notes=(*model.notes, note))
        return _attempt(replace(trial, model=retry), exact, make, clock)


def _attempt(trial: Trial, plan: Plan, make: MakeAdviser, clock: Clock) -> Outcome:
    model = trial.model
    advice = make(plan.target)
    context = Context(plan.target, plan.rules, advice)
    module = _rewrite(trial, plan, context, clock)
    with clock.stage("build"):
        built = build(module, plan.target, [region.name for region in model.regions])
    draft = Artifact(
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
    used = _memory(module, draft, plan.target)
    examined = examine(draft, trial, _terms(plan, model), used.peak, clock.stage)
    if advice is not None:
        advice.check()
    report = Report(
        model=model.name,
        inputs=model.inputs,
        outputs=model.outputs,
        regions=model.regions,
        target=draft.target,
        precision=plan.precision(model),
        pipeline=draft.pipeline,
        notes=(*model.notes, *context.notes),
        kernels=tuple(context.kernels),
        agreement=tuple(comparison.describe() for comparison in examined.agreement),
        latency=examined.latency,
        memory=used,
        stages=tuple(clock.stages),
        records=None if advice is None else advice.describe(),
    )
    artifact = replace(draft, report=report.lasting(), certificate=examined.certificate)
    return Outcome(artifact, report, examined.measured, examined.broken)


def _memory(module: IRModule, draft: Artifact, device: Target) -> memory.Memory:
    return memory.usage(module, draft.tensors(), draft.inputs, draft.outputs, device.threads)


def _feeds(model: Model, plan: Plan) -> Feeds:
    if plan.data is None:
        return calibration.random_feeds(model.inputs, plan.options.seed)
    return calibration.feeds(plan.data, model.inputs)


def _terms(plan: Plan, model: Model) -> Terms:
    options = plan.options
    data = f"random, seed {options.seed}" if options.calibration is None else "calibration data"
    tolerances = (options.rtol, options.atol)
    verified = options.verify != "off"
    precision = plan.precision(model)
    return Terms(verified, *tolerances, options.contract, data, precision, options.seed)


def _rewrite(trial: Trial, plan: Plan, context: Context, clock: Clock) -> IRModule:
    """Run the passes; what each took becomes a stage."""
    options, timing = plan.options, Timing()
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
