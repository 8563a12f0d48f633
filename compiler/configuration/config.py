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
from hybridc.compiler.filesystem.files import reason

_LONGEST = 2**20  # bytes of a configuration file
Share = float
Mode = Literal["neural", "quantum", "superopt", "balanced", "dynamic", "intelligent"]
Tier = Literal["conservative", "balanced", "aggressive", "insane"]
Level = Literal["graph", "subgraph", "kernel"]


class HybridConfig(BaseModel):
    """How to compile; every field is an option of `hybridc compile`, and a key of `--config FILE`.

    What each of them does is told by `descriptions.DESCRIPTIONS` and docs/configuration.md.
    Raises InputError, in one line, for an unknown name, a wrong type or value.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=False)

    # What to compile for, and by which passes
    target: str = "cpu"
    threads: int | None = Field(None, ge=1)
    dtype: str = "auto"
    level: int = Field(2, ge=0, le=3)
    pipeline: str | None = None
    plugin: tuple[Path, ...] = ()
    exact: bool = False
    fallback: bool = True
    backends: tuple[str, ...] = ("tvm",)

    # The contract
    max_latency: str | None = None
    min_throughput: float | None = None
    max_memory: str | None = None
    max_size: str | None = None
    min_accuracy: dict[str, float] = {}
    max_drop: dict[str, float] = {}
    validate_with: str | None = Field(None, alias="validate")
    calibration: Path | None = None
    validation: Path | None = None
    seed: int = 0
    verify: Literal["each", "end", "off"] = "end"
    rtol: float | None = None
    atol: float | None = None

    # Which components, in which order
    strategy: str = "cascade"
    mode: Mode | None = None
    tier: Tier | None = None
    components: tuple[str, ...] | None = None
    weights: dict[str, Share] = {}
    adaptive: bool = False
    predict: bool = False
    depth: int = Field(2, ge=1, le=3)
    order: tuple[str, ...] = ()
    threshold: Share = Field(0.0, ge=0, lt=1)
    workers: int | None = Field(None, ge=1)
    levels: tuple[Level, ...] = ("graph", "subgraph", "kernel")
    level_weights: dict[str, Share] = {}

    # How long
    budget: str | None = None
    trials: int | None = Field(None, ge=1)
    resume: bool = True
    strict: bool = False
    profile: bool = False

    # Monitoring
    monitor: bool = False
    monitor_interval: str = "100ms"
    trace: Path | None = None

    # What was measured before
    log: str | None = None
    near: Literal["never", "tools", "any"] = "tools"
    frozen: bool = False
    lock: Path | None = None

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
            raise PydanticCustomError("bool", "must not be true or false")
        return value

    @field_validator("weights", "level_weights")
    @classmethod
    def _weighed(cls, weights: dict[str, float]) -> dict[str, float]:
        for name, value in weights.items():
            if not 0 <= value < float("inf"):
                raise ValueError(f"the weight of {name} must be 0 or more, got {value:g}")
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
        with path.open("rb") as stream:
            content = stream.read(_LONGEST + 1)  # of a device there is no end
        text = content.decode()
    except OSError as error:
        raise InputError(f"cannot be read: {reason(error)}") from None
    except UnicodeDecodeError:
        raise InputError("it is not text") from None
    if len(content) > _LONGEST:
        raise InputError("it is too large for a configuration")
    match path.suffix:
        case ".toml":
            found = _toml(text)
        case ".yaml" | ".yml":
            found = _yaml(text)
        case _:
            raise InputError("a configuration file ends in .toml, .yaml or .yml")
    if not isinstance(found, Mapping) or not all(isinstance(key, str) for key in found):
        raise InputError("expected options by name")
    return dict(cast("Mapping[str, Any]", found))


def _toml(text: str) -> Any:
    import tomllib

    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"not valid TOML: {error}") from None


def _yaml(text: str) -> Any:
    try:
        import yaml
    except ImportError:
        raise InputError("reading YAML needs PyYAML: pip install 'hybridc[yaml]'") from None
    try:
        _check_once(yaml.compose(text, yaml.SafeLoader), set())
        return yaml.safe_load(text) or {}
    except (yaml.YAMLError, RecursionError) as error:
        raise InputError(f"not valid YAML: {' '.join(str(error).split())}") from None


def _check_once(node: Any, seen: set[Any]) -> None:
    """Raise InputError if a mapping of YAML has a key twice, of which one would be dropped.

    What was `seen` already may stand in many places, and in these in many again.
    """
    if getattr(node, "id", "") == "mapping" and node not in seen:
        seen.add(node)
        names = [str(key.value) for key, _ in node.value]
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise InputError(f"given twice: {', '.join(twice)}")
        for _, value in node.value:
            _check_once(value, seen)


def _line(error: ValidationError) -> str:
    """Everything that is wrong, in one line."""
    return "; ".join(_fault(each) for each in error.errors())


# What pydantic's kinds of faults are told as; others in its own words.
_WANTED = MappingProxyType(
    {
        "string_type": 'must be text, with its unit if it has one: "5ms"',
        "tuple_type": "must be a list",
        "dict_type": "must be a table of names and numbers",
        "bool_type": "must be true or false",
        "bool_parsing": "must be true or false",
        "int_type": "must be a whole number",
        "int_parsing": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_type": "must be a number",
        "float_parsing": "must be a number",
        "path_type": "must be a path",
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
