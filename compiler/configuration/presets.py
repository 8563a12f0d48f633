"""From a configuration to options: what levels and performance tiers stand for."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.configuration.config import HybridConfig
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.errors import InputError
from hybridc.compiler.measurement.clock import Progress
from hybridc.compiler.orchestration import modes
from hybridc.compiler.orchestration.steering import Steering
from hybridc.compiler.text.units import of_option, parse_duration
from hybridc.compiler.tuning.options import Tuning

# Trials of a kernel where tuning is asked for without a number.
TRIALS = 32


@dataclass(frozen=True)
class Preset:
    """What a performance tier stands for, where the user does not say otherwise."""

    components: tuple[str, ...] | None
    trials: int | None
    budget: str | None


TIERS: Mapping[str, Preset] = MappingProxyType(
    {
        "conservative": Preset((), None, "2min"),
        "balanced": Preset(None, 16, "10min"),
        "aggressive": Preset(None, 64, "1h"),
        "insane": Preset(None, 256, "8h"),
    }
)
# The pipeline of each optimisation level; level 1 also keeps the model's roundings.
_PIPELINES = ("minimal", "default", "default", "default")
_NO_TIER = Preset(None, None, None)


def options(config: HybridConfig, progress: Progress | None = None, **others: Any) -> Options:
    """The options that a configuration comes to; `others` are fields of `Options` that go before.

    Raises InputError if texts are not understood or options do not go together.
    """
    preset = TIERS[config.tier] if config.tier else _NO_TIER
    budget = config.budget or preset.budget
    found: dict[str, Any] = {
        "target": config.target,
        "threads": config.threads,
        "dtype": config.dtype,
        "pipeline": config.pipeline or _PIPELINES[config.level],
        "plugins": config.plugin,
        "verify": config.verify,
        "rtol": config.rtol,
        "atol": config.atol,
        "calibration": config.calibration,
        "validation": config.validation,
        "seed": config.seed,
        "exact": config.exact or config.level == 1,
        "contract": contract(config),
        "log": config.log,
        "near": config.near,
        "frozen": config.frozen,
        "lock": config.lock,
        "fallback": config.fallback,
        "backends": config.backends,
        "monitor": config.monitor,
        "monitor_interval": config.monitor_interval,
        "trace": config.trace,
        "tuning": tuning(config, preset),
        "steering": _steering(config, preset, budget),
    }
    if progress is not None:
        found["progress"] = progress
    return Options(**{**found, **others})


def contract(config: HybridConfig) -> Contract:
    """The limits of a configuration."""
    return Contract(
        max_latency=config.max_latency,
        min_throughput=config.min_throughput,
        max_size=config.max_size,
        min_accuracy=config.min_accuracy,
        max_memory=config.max_memory,
        max_drop=config.max_drop,
        validate=config.validate_with,
    )


def tuning(config: HybridConfig, preset: Preset) -> Tuning | None:
    """How to tune, where trials, a tier, a level, a mode or the components ask for it."""
    components = config.components if config.components is not None else preset.components
    if components is not None and "neural" not in components:
        if config.trials is not None:
            raise InputError("trials are for tuning, but neural is not among the components")
        return None
    if config.trials is not None:
        return Tuning(config.trials)
    asked = (
        preset.trials is not None
        or config.level == 3
        or config.mode is not None
        or "neural" in (components or ())
    )
    if not asked or config.frozen or config.lock is not None:
        return None
    return Tuning(modes.trials(config.mode, preset.trials or TRIALS))


def _steering(config: HybridConfig, preset: Preset, budget: str | None) -> Steering:
    same = ("strategy", "mode", "weights", "adaptive", "predict", "depth", "order", "threshold")
    more = ("workers", "levels", "level_weights", "resume", "strict", "profile")
    with of_option("budget"):
        seconds = None if budget is None else parse_duration(budget)
    return Steering(
        **{name: getattr(config, name) for name in (*same, *more)},
        components=config.components if config.components is not None else preset.components,
        budget=seconds,
    )
