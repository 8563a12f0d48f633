"""The options that steer a compilation, and `--config`, a file that can set any of them.

They mirror the fields of `HybridConfig`, which is imported only when a model is compiled: every
`--help` loads this module.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from hybridc.cli._options import option

_MODES = ("neural", "quantum", "superopt", "balanced", "dynamic", "intelligent")
_TIERS = ("conservative", "balanced", "aggressive", "insane")
# Options that take a comma-separated list, and repeated options of the form NAME=NUMBER.
LISTS = ("components", "order", "levels", "backends")
# Under this name click's context keeps the path of the file.
CONFIG = "hybridc.config"
MAPPINGS = ("min_accuracy", "max_drop", "weights", "level_weights")


def _from_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Take the values in a file as the defaults of the other options."""
    if path is None:
        return
    from hybridc.compiler.configuration.config import HybridConfig

    ctx.meta[CONFIG] = path
    values = HybridConfig.read(path).given()
    ctx.default_map = {name: _as_option(name, value) for name, value in values.items()}


def _as_option(name: str, value: Any) -> Any:
    """A value of the configuration in the form that its option takes."""
    if name in MAPPINGS:
        return [f"{key}={number!r}" for key, number in value.items()]
    if name in LISTS and value is not None:
        return ",".join(value)
    return value


_OPTIONS = (
    click.option(
        "--config",
        is_eager=True,
        expose_value=False,
        callback=_from_file,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Read options from a .toml or .yaml file; options on the command line override it.",
    ),
    option("-O", "--level", type=click.IntRange(0, 3), metavar="N", default=2, show_default=True),
    option("--strategy", metavar="NAME", default="cascade", show_default=True),
    option("--mode", type=click.Choice(_MODES), metavar="MODE"),
    option("--tier", type=click.Choice(_TIERS), metavar="TIER"),
    option("--components", metavar="NAME,..."),
    option("--weights", multiple=True, metavar="NAME=0.5"),
    option("--adaptive", is_flag=True),
    option("--predict", is_flag=True),
    option("--depth", type=click.IntRange(1, 3), metavar="N", default=2, show_default=True),
    option("--order", metavar="NAME,..."),
    option("--threshold", type=float, metavar="SHARE", default=0.0, show_default=True),
    option("--workers", type=click.IntRange(min=1), metavar="N"),
    option("--levels", metavar="NAME,...", default="graph,subgraph,kernel", show_default=True),
    option("--level-weights", multiple=True, metavar="NAME=0.5"),
    option("--budget", metavar="10min"),
    option("--resume/--no-resume", default=True, show_default=True),
    option("--strict", is_flag=True),
    option("--profile", is_flag=True),
)


def steering_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the steering options and `--config` to a command."""
    for added in reversed(_OPTIONS):
        command = added(command)
    return command


def fields(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of the options, as fields of `HybridConfig`."""
    from hybridc.compiler.assurance.limits import parse_limits

    found = dict(values)
    for name in MAPPINGS:
        found[name] = parse_limits(values[name], name.replace("_", " "))
    for name in LISTS:
        if values[name] is not None:
            found[name] = _split(values[name])
        elif name != "components":  # unset means all of them, an empty list none
            found[name] = ()
    return found


def _split(text: str) -> Sequence[str]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
