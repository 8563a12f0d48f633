"""From a model to an artifact: load, rewrite, build, verify, measure, certify.

`compile` is the public call and raises if the contract is broken; `compile_source` and
`compile_model` return the report and the broken limits instead.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hybridc.compiler import dims, frontend, pipeline, plugin
from hybridc.compiler.artifacts.artifact import Artifact
from hybridc.compiler.assurance import coverage, runnable, samples
from hybridc.compiler.assurance.calibration import Data
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.assurance.reduced import reduced
from hybridc.compiler.assurance.samples import Samples
from hybridc.compiler.assurance.terms import Trial
from hybridc.compiler.building.unscheduled import Unscheduled
from hybridc.compiler.configuration import plans, presets
from hybridc.compiler.configuration.config import HybridConfig
from hybridc.compiler.configuration.plans import NearHits, Options, Plan, Verify
from hybridc.compiler.errors import ContractError, InputError
from hybridc.compiler.filesystem import scratch
from hybridc.compiler.frontends.onnx_reference import OnnxReference
from hybridc.compiler.hardware import room
from hybridc.compiler.instruments import Timing
from hybridc.compiler.interfaces import Context
from hybridc.compiler.log.advisers import MakeAdviser, adviser, as_locked
from hybridc.compiler.measurement import profile
from hybridc.compiler.measurement.clock import Clock
from hybridc.compiler.model import Array, Model, open_dims
from hybridc.compiler.monitoring.monitor import INTERVAL
from hybridc.compiler.monitoring.observe import observed
from hybridc.compiler.monitoring.timeline import Timeline
from hybridc.compiler.orchestration import advice, cascade, resume, ways_in
from hybridc.compiler.orchestration.attempt import Outcome
from hybridc.compiler.orchestration.cascade import Cascaded
from hybridc.compiler.orchestration.decisions import NO_TIME
from hybridc.compiler.orchestration.expected_gains import history
from hybridc.compiler.orchestration.resume import Kept
from hybridc.compiler.orchestration.time_budget import OutOfTimeError, TimeBudget
from hybridc.compiler.orchestration.workshop import Workshop
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.tuning.options import Algorithms, Tuning


def compile(  # noqa: A001, PLR0913 - the public call; each is an option of `hybridc compile`
    source: Any,
    *,
    shapes: Mapping[str, Any] | None = None,
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
    calibration: Data | Path | str | None = None,
    validation: Data | Path | str | None = None,
    seed: int = 0,
    exact: bool = False,
    log: str | None = None,
    near: NearHits = "tools",
    frozen: bool = False,
    lock: Path | None = None,
    tuning: Tuning | None = None,
    monitor: bool = False,
    monitor_interval: str = INTERVAL,
    trace: Path | None = None,
    fallback: bool = True,
    backends: tuple[str, ...] = ("tvm",),
    keep_best: bool = False,
    config: HybridConfig | None = None,
) -> Artifact:
    """Compile a model for a target.

    `source` is a path (`.onnx`, `.pt2`), an `onnx.ModelProto`, a `torch.nn.Module` with
    `example_inputs`, or an `ExportedProgram`.  `shapes` gives open dimensions sizes or bounds, by
    the name of an input or of a dimension (`{"x": "1..64x3x224x224"}`, `{"batch": 8}`; see
    `dims.shape`); the others stay open.
    The other arguments are fields of `Options`, which describes them.  A `config` can set these
    and more; arguments that are not at their defaults override it.

    Raises HybridcError: ModelError if the model cannot be compiled, WrongAnswerError if its answer
    differs from the reference's, ContractError if the contract is broken and `keep_best` is not
    set, and MissingRecordError if a kernel is missing with `frozen` or a `lock`.
    """
    arguments = dict(locals())
    options = _options(arguments, config)
    outcome = compile_source(source, options, shapes, example_inputs)
    if outcome.broken and not keep_best:
        raise ContractError("; ".join(outcome.broken))
    return outcome.artifact


def _options(arguments: Mapping[str, Any], config: HybridConfig | None) -> Options:
    """The options of a configuration, overridden by arguments that are not at their defaults."""
    plain = Options()
    chosen = {
        each.name: arguments[each.name]
        for each in fields(Options)
        if each.name in arguments and arguments[each.name] not in (None, getattr(plain, each.name))
    }
    return replace(plain, **chosen) if config is None else presets.options(config, **chosen)


def compile_source(
    source: Any,
    options: Options,
    shapes: Mapping[str, Any] | None = None,
    example_inputs: tuple[Any, ...] | None = None,
) -> Outcome:
    """Load a model and compile it; the options are checked before the model is read."""
    check(options)
    options = as_locked(options)
    with adviser(options) as make, observed(options) as seen:
        plan, clock = plans.plan(options), _clock(options, seen.timeline)

        def load(without: tuple[str, ...]) -> Model:
            with clock.stage("load"):
                return frontend.load(
                    source,
                    shapes=shapes or {},
                    example_inputs=example_inputs,
                    fallback=options.fallback,
                    without=without,
                )

        rounded = reduced(options.dtype) is not None
        found = ways_in.by_any(load, lambda model: _compile(model, plan, make, clock), rounded)
        return found.watched(seen.monitored()).sized(options.contract)


def check(options: Options) -> None:
    """Raise InputError or PluginError if something is wrong with the options."""
    plans.check(options)
    cascade.check(options)


def unscheduled(
    source: Any,
    options: Options,
    shapes: Mapping[str, Any] | None = None,
    timeline: Timeline | None = None,
    algorithms: Algorithms | None = None,
) -> Unscheduled:
    """Load a model and run the passes that come before scheduling.

    With `algorithms`, the alternatives of each operator are measured, and the fastest is used.
    Raises InputError if the pipeline schedules nothing.
    """
    plan, clock = plans.plan(options), Clock(options.progress, timeline=timeline)
    plans.check_tunable(options)
    names = [plugin.name_of(type(step)) for step in plan.steps]
    if plans.SCHEDULING not in names:
        raise InputError(f"there is nothing to tune without the pass {plans.SCHEDULING}")
    at = names.index(plans.SCHEDULING)
    with clock.stage("load"):
        model = frontend.load(source, shapes=shapes or {}, fallback=options.fallback)
    context = Context(plan.target, plan.rules, timeline=clock.timeline)
    instruments: list[pipeline.Instrument] = [clock, Timing(clock.timeline)]
    if algorithms is not None:
        # SQLAlchemy takes its time.
        from hybridc.compiler.tuning.algorithms import MeasureAlgorithms

        instruments.insert(0, MeasureAlgorithms(options, algorithms, context, plan.steps))
    module = pipeline.run(plan.steps[:at], model.module, context, instruments)
    return Unscheduled(model, module, context, plan.steps[at:])


def compile_model(model: Model, options: Options) -> Outcome:
    """Compile a model that a frontend has loaded."""
    options = as_locked(options)
    with adviser(options) as make, observed(options) as seen:
        clock = _clock(options, seen.timeline)
        found = _compile(model, plans.plan(options), make, clock).watched(seen.monitored())
        return found.sized(options.contract)


def resumes(options: Options) -> bool:
    """Whether an interrupted compilation keeps the results of its stages for the next one.

    Not with a validation function: it has no digest, so nobody could know that it is the same.
    """
    validated = options.contract.validate is not None
    return options.steering.resume and not validated and cascade.several(options)


def _compile(model: Model, plan: Plan, make: MakeAdviser, clock: Clock) -> Outcome:
    """Go through the stages that the contract needs; each is compiled from the model again."""
    scratch.sweep()
    options = cascade.timed(plan.options)
    plan = replace(plan, options=options)
    if model.ways and plan.target.gpu is not None:
        raise InputError("an input chooses between branches of this model: it runs on CPUs alone")
    compared = options.verify != "off" or bool(options.contract.min_accuracy)
    if compared:
        _check_room(model)
    data = samples.samples(model, plan)
    wanted: list[list[Array]] = []
    if compared:
        model, data, wanted = _with_answers(data, model, plan, clock)
    trial = Trial(_noting_gaps(model, wanted, data, options), data.feeds, wanted, data)
    kept = Kept(resume.folder_of(resume.key(trial, plan)), trial) if resumes(options) else None
    shop = Workshop(plan, trial, make, clock, kept)
    past = history.read() if cascade.several(options) else ()
    try:
        found = cascade.run(options, shop.means(), clock.time_budget, past)
    except KeyboardInterrupt as error:
        raise shop.interrupted(error) from None
    return _finished(found, shop)


def _check_room(model: Model) -> None:
    """Raise InputError if the reference, which keeps each tensor by itself, has no room for one."""
    from hybridc.compiler.ir import memory  # TVM takes its time

    size, shape = memory.largest(model.module, dims.nominal(open_dims(model.inputs)))
    room.check(size, f"to compute {shape}, the reference takes")


def _with_answers(data: Samples, model: Model, plan: Plan, clock: Clock) -> runnable.Answered:
    """The samples with the reference's answers, with which those of every stage are compared."""
    try:
        with clock.stage("reference"):
            return runnable.answered(model, plan, data, clock.time_budget.check)
    except OutOfTimeError as error:
        raise error.too_short() from None
    finally:
        if isinstance(model.reference, OnnxReference):
            model.reference.release()


def _noting_gaps(
    model: Model, wanted: Sequence[Sequence[Array]], data: Samples, options: Options
) -> Model:
    """The model, with a note if some of its outputs are NaN, or a limit says nothing of them.

    Raises InputError if a limit on their accuracy would be meaningless.
    """
    notes = coverage.check(model, wanted, options.contract.min_accuracy, data.told)
    return replace(model, notes=(*model.notes, *notes)) if notes else model


def _finished(found: Cascaded[Outcome], shop: Workshop) -> Outcome:
    """The best outcome with its complete report; what was learnt is saved for later."""
    clock, plan, kept = shop.clock, shop.plan, shop.kept
    notes = [history.add(found.learnt)]
    if kept is not None:
        notes += kept.notes
        if any(each.verdict == NO_TIME for each in found.decisions):
            shop.keep()
        else:
            kept.clear()
    profiled = None
    if plan.options.steering.profile and clock.time_budget.left == 0.0:
        notes.append("kernels were not timed for the profile: the budget is used up")
    elif plan.options.steering.profile:
        with clock.stage("profile"):
            session = InferenceSession(found.best.artifact, plan.target.threads)
            profiled = profile.on_this_host(session, plan.target.threads).to_json()
    trial, limits = shop.trial, (plan.options.contract, found.best.measured)
    reference = advice.of_reference(trial.model, *limits, clock.time_budget.left)
    tried = trial.unseen() if found.best.sensitive else trial
    few = advice.of_samples(*limits, len(tried.feeds), tried.data.told if tried.data else "")
    every = [*found.best.report.notes, *filter(None, notes)]
    every += [note for note in dict.fromkeys(shop.tunings) if note not in every]
    best = found.best.decided(
        (*found.advice, *reference, *few),
        clock.stages,
        decisions=found.decisions,
        hybrid=found.hybrid,
        profile=profiled,
        notes=tuple(every),
    )
    return replace(best, left=clock.time_budget.left)


def _clock(options: Options, timeline: Timeline) -> Clock:
    return Clock(options.progress, TimeBudget(options.steering.budget), timeline)
