"""The options that form a contract."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from hybridc.compiler.assurance.contract import Contract

_OPTIONS = (
    click.option(
        "--max-latency",
        metavar="5ms",
        help="Fail if a call takes longer: the median, or a percentile such as p99<=8ms.",
    ),
    click.option(
        "--min-throughput",
        type=float,
        metavar="200",
        help="Fail below this number of calls per second.",
    ),
    click.option("--max-memory", metavar="200MB", help="Fail if a call's peak memory is higher."),
    click.option("--max-size", metavar="100MB", help="Fail if the artifact is larger."),
    click.option(
        "--min-accuracy",
        multiple=True,
        metavar="cosine=0.999",
        help="Fail if an output is less accurate: cosine, snr, top1, max-abs, max-rel or validate.",
    ),
    click.option(
        "--max-drop",
        multiple=True,
        metavar="validate=0.01",
        help="Fail if the result of --validate is lower than the reference's by more than this.",
    ),
    click.option(
        "--validate",
        metavar="PKG.MOD:FN",
        help="Your own metric: a function that takes a session and returns a number.  It is"
        " executed, so use only code that you trust.",
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
    """Add the options that `contract` reads to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def contract(values: Mapping[str, Any]) -> "Contract":
    """The contract given by the values of the options, by name."""
    from hybridc.compiler.assurance.contract import Contract
    from hybridc.compiler.assurance.limits import parse_limits

    limits = {name: values[name] for name in NAMES}
    for name in ("min_accuracy", "max_drop"):
        limits[name] = parse_limits(limits[name], name.replace("_", " "))
    return Contract(**limits)
