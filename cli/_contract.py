"""The options that make a contract."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hybridc.compiler.assurance.contract import Contract

_OPTIONS = (
    click.option(
        "--max-latency",
        metavar="5ms",
        help="Fail if a call takes longer: the median, or another percentile as in p99<=8ms.",
    ),
    click.option(
        "--min-throughput",
        type=float,
        metavar="200",
        help="Fail if there are fewer calls per second.",
    ),
    click.option("--max-memory", metavar="200MB", help="Fail if a call needs more at its peak."),
    click.option("--max-size", metavar="100MB", help="Fail if the artifact is larger."),
    click.option(
        "--min-accuracy",
        multiple=True,
        metavar="cosine=0.999",
        help="Fail if an output is worse than this: cosine, snr, top1, max-abs, max-rel, or"
        " validate.",
    ),
    click.option(
        "--max-drop",
        multiple=True,
        metavar="validate=0.01",
        help="Fail if the number of --validate is lower than the reference's by more.",
    ),
    click.option(
        "--validate",
        metavar="PKG.MOD:FN",
        help="Your own measure: it gets a session and returns a number.  It is run: give your own.",
    ),
)
NAMES = (
    "max_latency",
    "min_throughput",
    "max_memory",
    "max_size",
    "min_accuracy",
    "max_drop",
    "validate",
)


def contract_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that `contract` reads."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def contract(values: Mapping[str, Any]) -> "Contract":
    """Make the contract of what was given for the options, by their names."""
    from hybridc.compiler.assurance.contract import Contract
    from hybridc.compiler.assurance.limits import parse_limits

    limits = {name: values[name] for name in NAMES}
    for name in ("min_accuracy", "max_drop"):
        limits[name] = parse_limits(limits[name], name.replace("_", " "))
    return Contract(**limits)
