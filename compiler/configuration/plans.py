"""How to compile: the options, and the plan that they make once all of them are read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from hybridc.compiler import pipeline, plugin, target
from hybridc.compiler.assurance import calibration
from hybridc.compiler.assurance.calibration import Data
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.cuda import gpu
from hybridc.compiler.errors import InputError
from hybridc.compiler.hardware import host
from hybridc.compiler.interfaces import Context, Pass, ScheduleRule
from hybridc.compiler.measurement.clock import Progress
from hybridc.compiler.model import Model, open_dims
from hybridc.compiler.monitoring import observe
from hybridc.compiler.monitoring.monitor import INTERVAL
from hybridc.compiler.offload import backend
from hybridc.compiler.offload.backend import Backend
from hybridc.compiler.orchestration import lowerable, precisions
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.plugin import Catalogue
from hybridc.compiler.target import CUDA, Target
from hybridc.compiler.tuning.options import Tuning

Verify = Literal["each", "end", "off"]
NearHits = Literal["never", "tools", "any"]

# Which records of another toolchain or target stand in for those of this one: none; those where
# the tools differ, or facts of the machine that were measured; any.
NEAR_HITS: tuple[NearHits, ...] = ("never", "tools", "any")

# The pass that gives kernels their points; before it they can be tuned.
SCHEDULING = "schedule"
# What makes loop nests of products.
_LOWERING = ("pack-weights", "align-weights", "legalize")
# The pass that takes ranges from calibration data.
CALIBRATING = "quantize"


def _silent(_: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Options:
    """How to compile.

    `target` and `threads` are what to compile for, `pipeline` the passes, and `plugins` files with
    more passes, rules, strategies or backends.  `verify` is when answers are compared with the
    reference: after `each` pass, at the `end`, or `off`; `rtol` and `atol` replace the tolerances
    in `verify.TOLERANCES`.

    `calibration` is data to verify and measure on: arrays by input name, an iterable of such, or a
    file (see `calibration`); default: random, by `seed`.  `validation` replaces it for verifying
    and measuring if a precision is calibrated; without it the calibration data is split (see
    `samples`).

    `dtype` is the precision of products, of `precisions.names()` or `precisions.PAIRS`; `auto` is
    fp32, or less if the contract cannot be kept otherwise and has a limit on accuracy.  `precise`
    names products that a lower precision leaves alone.  `exact` forbids passes that round
    differently from the model's operators; if an answer is beyond its tolerance, this is tried
    before the model is refused, except in lower precisions, which are never exact.

    `log` is the path or URL of a tuning log, whose winners take precedence over the rules'
    defaults; None is the default log, if it exists.  `near` is which records of other conditions
    count (`NEAR_HITS`), and `frozen` refuses a kernel that has none.  `lock` takes the rule and
    point of every kernel from an artifact or a schedule lock instead.  With `tuning`, kernels are
    tuned first, into that log.

    `backends` are libraries that may compute kernels if they are measured to be faster than our
    own, `tvm` (see `offload.choice`); the artifact then needs them.  `fallback` lets ONNX Runtime,
    inside the artifact, compute operators that cannot be imported; without it they are refused.

    `steering` is how stages are chosen.  Calls are timed if a limit needs it, or with `timed`.
    `progress` is told each step as it begins.  `monitor` samples CPU, memory, GPU and energy use
    every `monitor_interval`, for the report; `trace` is a file for a trace of the compilation,
    which is written even if it fails.  `dump_ir` is a folder for the IR around each pass.
    """

    target: str = "cpu"
    threads: int | None = None
    dtype: str = precisions.AUTO
    pipeline: str = "default"
    plugins: Sequence[Path] = ()
    verify: Verify = "end"
    rtol: float | None = None
    atol: float | None = None
    calibration: Data | Path | str | None = None
    validation: Data | Path | str | None = None
    precise: tuple[str, ...] = ()
    seed: int = 0
    exact: bool = False
    dump_ir: Path | None = None
    contract: Contract = field(default_factory=Contract)
    log: str | None = None
    near: NearHits = "tools"
    frozen: bool = False
    lock: Path | None = None
    tuning: Tuning | None = None
    steering: Steering = field(default_factory=Steering)
    timed: bool = False
    monitor: bool = False
    monitor_interval: str = INTERVAL
    trace: Path | None = None
    fallback: bool = True
    backends: tuple[str, ...] = (backend.OWN,)
    progress: Progress = _silent


@dataclass(frozen=True)
class Plan:
    """The options, resolved and checked: target, passes, rules and data."""

    options: Options
    target: Target
    steps: tuple[Pass, ...]
    rules: tuple[ScheduleRule, ...]
    data: Data | None = None
    validation: Data | None = None
    backends: tuple[Backend, ...] = ()

    def precision(self, model: Model) -> str:
        """The precision that the model is computed in: its own, or what a pass lowers it to."""
        return written_in(model) or precisions.of_steps(self.steps)

    def check_lowered(self, model: Model, context: Context) -> None:
        """Raise InputError if the passes of a lower precision have lowered no operator.

        A model that is written in that precision needs none.  Of a pair each has to lower some.
        """
        dtype = precisions.of_steps(self.steps)
        if dtype in (precisions.FULL, written_in(model)):
            return
        if not context.lowered:
            raise InputError(
                f"dtype {dtype} changes nothing in this model: "
                f"{lowerable.why_nothing(dtype, self.target.kind, model.module)}"
                f"{_beside(model)}"
            )
        if idle := precisions.idle(dtype, context.idle):
            (other,) = set(precisions.parts(dtype)) - {idle}
            why = lowerable.why_half(idle, self.target.kind, model.module)
            raise InputError(f"dtype {dtype} is no other than {other} in this model: {why}")

    @property
    def calibrates(self) -> bool:
        """Whether a pass takes ranges from calibration data."""
        return CALIBRATING in [plugin.name_of(type(step)) for step in self.steps]

    def exact(self) -> "Plan":
        """The plan without passes that round differently from the model's operators."""
        return replace(self, steps=tuple(step.exact() for step in self.steps))


def _beside(model: Model) -> str:
    """Other reasons why a precision may find no product: open sizes, regions."""
    names = ", ".join(open_dims(model.inputs))
    opened = f"; its sizes {names} are open, and this precision may need them fixed"
    regions = "; what is handed to ONNX Runtime is computed as it is"
    return (opened if names else "") + (regions if model.regions else "")


def pipeline_of(options: Options) -> str:
    """The pipeline's text for the options' target."""
    return pipeline.on_device(options.pipeline, target.kind_of(options.target))


def calibrates(options: Options) -> bool:
    """Whether these options take ranges from calibration data."""
    names = [entry.partition("{")[0] for entry in pipeline.entries(pipeline_of(options))]
    return options.dtype in precisions.CALIBRATED or CALIBRATING in names


def written_in(model: Model) -> str:
    """The lower precision that a model comes in, or nothing."""
    from hybridc.compiler.ir.rewrite import calls, computes_in  # TVM takes its time

    if calls(model.module, "quantize", "dequantize"):
        return "int8"
    return "bf16" if computes_in(model.module, "bfloat16") else ""


def check(options: Options) -> None:
    """Raise InputError or PluginError if options contradict each other; TVM is not imported."""
    if options.verify not in ("each", "end", "off"):
        raise InputError(f"verify is each, end or off, not {options.verify!r}")
    if options.near not in NEAR_HITS:
        raise InputError(f"near is {', '.join(NEAR_HITS)}, not {options.near!r}")
    _check_numbers(options)
    if options.target == "cpu":  # this host
        host.check_threads(options.threads)
    if options.lock is not None and (options.log is not None or options.frozen):
        raise InputError("a lock already decides everything: give it without log and frozen")
    if options.tuning is not None:
        if options.lock is not None or options.frozen:
            raise InputError("a frozen or locked build is not tuned: leave out trials")
        check_tunable(options)
        options.tuning.check(options.plugins)
        host.check_threads(options.threads)
    options.steering.check()
    observe.check(options)
    _check_backends(options)


def _check_numbers(options: Options) -> None:
    """Raise InputError for an impossible tolerance or seed."""
    for name, value in (("rtol", options.rtol), ("atol", options.atol)):
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"{name} must be a number of 0 or more, got {value:g}")
    if options.seed < 0:
        raise InputError(f"a seed must be a whole number of 0 or more, got {options.seed}")


def check_tunable(options: Options) -> None:
    """Raise InputError if kernels for the target cannot be measured on this host."""
    if gpu.is_name(options.target):
        raise InputError(
            f"kernels are tuned on the GPU itself: --target cuda, not {options.target}"
        )


def _check_backends(options: Options) -> None:
    """Raise InputError for backends that are unknown, or that cannot be measured here."""
    if not _libraries(options, target.kind_of(options.target)):
        return
    if options.frozen:
        raise InputError("backends are chosen by measuring, and a frozen build measures nothing")
    if options.verify == "each":
        raise InputError("verify each cannot run vendor libraries: leave out one or the other")
    if gpu.is_name(options.target):
        raise InputError(
            f"backends are chosen by measuring, which needs the GPU: --target cuda, not"
            f" {options.target}"
        )


def plan(options: Options) -> Plan:
    """Resolve the options.  Raises InputError or PluginError if one of them is wrong."""
    check(options)
    steps = _steps(options)
    device = target.parse(options.target, options.threads)
    rules = pipeline.rules(options.plugins, device.kind)
    data, apart = _data(options.calibration), _data(options.validation)
    libraries = _libraries(options, device.kind)
    planned = Plan(options, device, steps, rules, data, apart, libraries)
    return planned.exact() if options.exact else planned


def _libraries(options: Options, device: str) -> tuple[Backend, ...]:
    return backend.select(options.backends, device, options.plugins)


def _data(data: Data | Path | str | None) -> Data | None:
    return calibration.read(Path(data)) if isinstance(data, Path | str) else data


def finish(steps: Sequence[Pass]) -> str:
    """The passes after the last `schedule`, which every scheduled kernel still goes through."""
    names = [plugin.name_of(type(step)) for step in steps]
    return pipeline.text(steps[len(names) - names[::-1].index(SCHEDULING) :])


def _steps(options: Options) -> tuple[Pass, ...]:
    """The passes of the pipeline, with those that lower precision or offload if options ask."""
    catalogue = pipeline.passes(options.plugins)
    steps = pipeline.parse(pipeline_of(options), catalogue)
    if not steps:
        raise InputError("a pipeline without passes generates no code; the usual one is 'default'")
    device = target.kind_of(options.target)
    precisions.check(options.dtype, options.exact, device)
    tight = options.contract.max_memory is not None
    lowered = precisions.lowered(
        steps, options.dtype, catalogue, options.precise, device, tight=tight
    )
    if not set(options.backends) - {backend.OWN}:
        return lowered
    return _offloading(lowered, catalogue, device)


# Where kernels are looked for that libraries may compute: before the first of each that is there.
_OFFLOADED = (("offload{attention=true}", ("fuse-attention",)), ("offload", _LOWERING))
# Of a GPU, products of 16 bits are looked for before their epilogues are computed in float32:
# libraries for it multiply, add and store these as they are.
_WIDENING = "widen-types"


def _offloading(steps: Sequence[Pass], catalogue: Catalogue[Pass], device: str) -> tuple[Pass, ...]:
    """The steps with the pass that lets libraries compute kernels."""
    extended = list(steps)
    for text, lowering in _OFFLOADED:
        anchors = (_WIDENING, *lowering) if device == CUDA and lowering == _LOWERING else lowering
        names = [plugin.name_of(type(step)) for step in extended]
        if found := next((anchor for anchor in anchors if anchor in names), None):
            extended.insert(names.index(found), catalogue.create(text))
    return tuple(extended)
