"""All options of a compilation in one typed, documented model, from Python, TOML or YAML."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.files import reason

_LONGEST = 2**20  # bytes of a configuration file
Share = float
Mode = Literal["neural", "quantum", "superopt", "balanced", "dynamic", "intelligent"]
Tier = Literal["conservative", "balanced", "aggressive", "insane"]
Level = Literal["graph", "subgraph", "kernel"]


class HybridConfig(BaseModel):
    """How to compile; every field is an option of `hybridc compile`, and a key of `--config FILE`.

    Raises InputError, in one line, for an unknown name, a wrong type or value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)

    # What to compile for, and by which passes
    target: str = Field("cpu", description="cpu (this host), avx2, avx512, a GPU, or a TVM target.")
    threads: int | None = Field(None, ge=1, description="Number of threads; default: one per core.")
    dtype: str = Field("auto", description="Precision of products; auto: by the contract.")
    level: int = Field(
        2,
        ge=0,
        le=3,
        description="Optimisation level.  0: only what makes the model run; 1: also what does not"
        " change rounding; 2: all passes; 3: all passes, and kernels are tuned.",
    )
    pipeline: str | None = Field(None, description="The passes to run; default: by the level.")
    plugin: tuple[Path, ...] = Field(
        (), description="Files that add passes, rules, strategies or backends."
    )
    exact: bool = Field(False, description="Round as the model does: no Winograd convolution.")
    fallback: bool = Field(
        True,
        description="Let ONNX Runtime compute operators that cannot be compiled, or refuse them.",
    )
    backends: tuple[str, ...] = Field(
        ("tvm",),
        description="Libraries that may compute kernels where they are measured to be faster than"
        " our own; the artifact then needs them.",
    )

    # The contract
    max_latency: str | None = Field(None, description="Longest time of a call: 5ms, p99<=8ms.")
    min_throughput: float | None = Field(None, description="Fewest calls per second.")
    max_memory: str | None = Field(None, description="Largest peak memory of a call.")
    max_size: str | None = Field(None, description="Largest size of the artifact.")
    min_accuracy: dict[str, float] = Field(
        {}, description="Least accuracy of an output, by metric."
    )
    max_drop: dict[str, float] = Field({}, description="How much lower validate's result may be.")
    validate_with: str | None = Field(
        None, alias="validate", description="Your own metric: package.module:function."
    )
    calibration: Path | None = Field(
        None,
        description="Inputs to verify and measure on; for int8, half of them set the ranges.",
    )
    validation: Path | None = Field(
        None,
        description="Separate inputs to verify and measure on; all of calibration sets the ranges.",
    )
    seed: int = Field(0, description="Seed of all random choices.")
    verify: Literal["each", "end", "off"] = Field("end", description="When to compare answers.")
    rtol: float | None = Field(None, description="Relative tolerance; default: by precision.")
    atol: float | None = Field(None, description="Absolute tolerance; default: by precision.")

    # Which components, in which order
    strategy: str = Field(
        "cascade",
        description="How stages are chosen: cascade, fusion, adaptive, parallel, hierarchical.",
    )
    mode: Mode | None = Field(
        None,
        description="Which component the budget goes to first: neural, quantum, superopt; or"
        " balanced, dynamic (to what pays off), intelligent (by experience).",
    )
    tier: Tier | None = Field(None, description="A preset for components, trials and budget.")
    components: tuple[str, ...] | None = Field(
        None,
        description="The components to use; default: all that have stages.",
    )
    weights: dict[str, Share] = Field(
        {}, description="The weight of each component, in the budget and in hybrid efficiency."
    )
    adaptive: bool = Field(
        False, description="Skip stages whose expected gain is within the noise."
    )
    predict: bool = Field(
        False,
        description="Report the gain that was expected of each stage, beside the measured one.",
    )
    depth: int = Field(
        2,
        ge=1,
        le=3,
        description="Depth of the analysis behind predictions: 1 the whole model, 2 each kernel and"
        " the tuning log, 3 the measured time of each kernel.",
    )
    order: tuple[str, ...] = Field((), description="Stages or components that come first.")
    threshold: Share = Field(
        0.0, ge=0, lt=1, description="The share of the cost that a stage must save to be kept."
    )
    workers: int | None = Field(
        None,
        ge=1,
        description="Number of processes for the strategy parallel; default: by the cores.",
    )
    levels: tuple[Level, ...] = Field(
        ("graph", "subgraph", "kernel"), description="The levels of the strategy hierarchical."
    )
    level_weights: dict[str, Share] = Field(
        {}, description="The weight of each level in the budget; default: equal."
    )

    # How long
    budget: str | None = Field(None, description="Stop after this time, with the best result.")
    trials: int | None = Field(
        None, ge=1, description="Points to measure per kernel on average, besides its default."
    )
    resume: bool = Field(True, description="Reuse the finished stages of an interrupted call.")
    strict: bool = Field(False, description="Fail if any stage or component fails.")
    profile: bool = Field(False, description="Report the time of each kernel.")

    # Monitoring
    monitor: bool = Field(
        False, description="Sample CPU, memory, GPU and energy use; the report has the curves."
    )
    monitor_interval: str = Field("100ms", description="The time between two samples.")
    trace: Path | None = Field(None, description="Write a trace for Perfetto or Chrome here.")

    # What was measured before
    log: str | None = Field(None, description="The tuning log: a path or a URL.")
    near: Literal["never", "tools", "any"] = Field(
        "tools", description="Which records to use where the log has none for these conditions."
    )
    frozen: bool = Field(False, description="Fail (exit code 4) if the log lacks a kernel.")
    lock: Path | None = Field(None, description="Rebuild an artifact: take its schedules.")

    def __init__(self, **options: Any) -> None:
        """Take the fields by name; texts with units as on the command line."""
        try:
            super().__init__(**options)
        except ValidationError as error:
            raise InputError(_line(error)) from None

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse true and false as numbers, which pydantic reads as 1 and 0."""
        numbers = (
            cast("Mapping[str, Any]", value).values() if isinstance(value, Mapping) else [value]
        )
        if (
            any(isinstance(each, bool) for each in numbers)
            and cls.model_fields[info.field_name or ""].annotation is not bool
        ):
            raise PydanticCustomError("bool", "wants no truth value")
        return value

    @field_validator("weights", "level_weights")
    @classmethod
    def _weighed(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, value in weights.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"the weight of {name} is 0 or more, got {value:g}")
        return weights

    @classmethod
    def read(cls, path: Path) -> "HybridConfig":
        """Read a file that ends in .toml, .yaml or .yml.

        Raises InputError if it cannot be read, or a key or value in it is wrong.
        """
        try:
            return cls(**_parsed(path))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None

    def given(self) -> dict[str, Any]:
        """The fields that were set, by their names on the command line."""
        names = {"validate_with": "validate"}
        return {names.get(name, name): getattr(self, name) for name in self.model_fields_set}


def names() -> tuple[str, ...]:
    """The keys of a configuration."""
    return tuple(field.alias or name for name, field in HybridConfig.model_fields.items())


def _parsed(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _LONGEST:
            raise InputError("it is too long for a configuration")
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot be read: {reason(error)}") from None
    except UnicodeDecodeError:
        raise InputError("it is no text") from None
    match path.suffix:
        case ".toml":
            found = _toml(text)
        case ".yaml" | ".yml":
            found = _yaml(text)
        case _:
            raise InputError("a configuration ends in .toml, .yaml or .yml")
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise InputError("wanted options by name")
    return dict(cast("Mapping[str, Any]", found))


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"this is no TOML: {error}") from None


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise InputError("reading YAML needs PyYAML: pip install 'hybridc[yaml]'") from None
    try:
        _check_once(yaml.compose(text, yaml.SafeLoader))
        return yaml.safe_load(text) or {}
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"this is no YAML: {' '.join(str(error).split())}") from None


def _check_once(node: Any) -> None:
    """Raise InputError where a mapping of YAML has a key twice, of which one would be dropped."""
    if getattr(node, "id", "") == "mapping":
        names = [str(key.value) for key, _ in node.value]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise InputError(f"given twice: {', '.join(twice)}")
        for _, value in node.value:
            _check_once(value)


def _line(error: ValidationError) -> str:
    """Everything that is wrong, in one line."""
    return "; ".join(_fault(each) for each in error.errors())


# What pydantic's kinds of faults are told as; others in its own words.
_WANTED = MappingProxyType(
    {
        "string_type": 'wants text, with its unit if it has one: "5ms"',
        "tuple_type": "wants a list",
        "dict_type": "wants a table of names and numbers",
        "bool_type": "wants true or false",
        "bool_parsing": "wants true or false",
        "int_type": "wants a whole number",
        "int_parsing": "wants a whole number",
        "int_from_float": "wants a whole number",
        "float_type": "wants a number",
        "float_parsing": "wants a number",
        "path_type": "wants a path",
    }
)


def _fault(each: Mapping[str, Any]) -> str:
    where, kind = ".".join(map(str, each["loc"])), str(each["type"])
    if kind == "extra_forbidden":
        return f"no option is named {where!r}; {hint(where, names())}"
    got = f"got {each['input']!r:.60}"
    if kind == "literal_error":
        possible = re.findall(r"'([^']*)'", str(each["ctx"]["expected"]))
        return f"{where}: {got}; {hint(str(each['input']), possible)}"
    message = str(each["msg"]).removeprefix("Value error, ")
    if kind == "value_error":  # our own words, which say what was given
        return f"{where}: {message}"
    wanted = _WANTED.get(kind, message.removeprefix("Input ").lower())
    return f"{where}: {wanted}, {got}"
