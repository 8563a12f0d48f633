"""The options that steer a compilation, and `--config`, a file that can set any of them.

They mirror the fields of `HybridConfig`, which is imported only when a model is compiled: every
`--help` loads this module.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

_MODES = ("neural", "quantum", "superopt", "balanced", "dynamic", "intelligent")
_TIERS = ("conservative", "balanced", "aggressive", "insane")
# Options that take a comma-separated list, and repeated options of the form NAME=NUMBER.
LISTS = ("components", "order", "levels", "backends")
MAPPINGS = ("min_accuracy", "max_drop", "weights", "level_weights")


def _from_file(ctx: click.Context, _: click.Parameter, path: Path | None) -> None:
    """Take the values in a file as the defaults of the other options."""
    if path is None:
        return
    from hybridc.compiler.configuration.config import HybridConfig

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
    click.option(
        "-O",
        "--level",
        type=click.IntRange(0, 3),
        metavar="N",
        default=2,
        show_default=True,
        help="0: only what makes the model run; 1: also what does not change rounding; 2: all"
        " passes; 3: all passes, and kernels are tuned.",
    ),
    click.option(
        "--strategy",
        metavar="NAME",
        default="cascade",
        show_default=True,
        help="How stages are chosen: cascade, fusion, adaptive, parallel, hierarchical.",
    ),
    click.option(
        "--mode",
        type=click.Choice(_MODES),
        metavar="MODE",
        help=f"Which component the budget goes to first: {', '.join(_MODES)}.",
    ),
    click.option(
        "--tier",
        type=click.Choice(_TIERS),
        metavar="TIER",
        help=f"A preset for components, trials and budget: {', '.join(_TIERS)}.",
    ),
    click.option(
        "--components",
        metavar="NAME,...",
        help="Use only these: neural, precision, subgraph, quantum, superopt.",
    ),
    click.option(
        "--weights",
        multiple=True,
        metavar="NAME=0.5",
        help="The weight of a component in the budget and in hybrid efficiency.",
    ),
    click.option(
        "--adaptive", is_flag=True, help="Skip stages whose expected gain is within the noise."
    ),
    click.option(
        "--predict", is_flag=True, help="Report the gain that was expected of each stage."
    ),
    click.option(
        "--depth",
        type=click.IntRange(1, 3),
        metavar="N",
        default=2,
        show_default=True,
        help="Predict from the whole model (1), each kernel (2), or each kernel's time (3).",
    ),
    click.option("--order", metavar="NAME,...", help="Stages or components that come first."),
    click.option(
        "--threshold",
        type=float,
        metavar="SHARE",
        default=0.0,
        show_default=True,
        help="The share of the cost that a stage must save to be kept.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(min=1),
        metavar="N",
        help="Number of processes for the strategy parallel.",
    ),
    click.option(
        "--levels",
        metavar="NAME,...",
        default="graph,subgraph,kernel",
        show_default=True,
        help="The levels that the strategy hierarchical works through.",
    ),
    click.option(
        "--level-weights", multiple=True, metavar="NAME=0.5", help="A level's weight in the budget."
    ),
    click.option(
        "--budget", metavar="10min", help="Stop after this time, with the best result so far."
    ),
    click.option(
        "--resume/--no-resume",
        default=True,
        show_default=True,
        help="Reuse the finished stages of an interrupted compilation.",
    ),
    click.option("--strict", is_flag=True, help="Fail if any stage or component fails."),
    click.option("--profile", is_flag=True, help="Report the time of each kernel."),
)


def steering_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the steering options and `--config` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
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
