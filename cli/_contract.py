"""The options that form a contract."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from hybridc.cli._options import option

if TYPE_CHECKING:
    from hybridc.compiler.assurance.contract import Contract

_OPTIONS = (
    option("--max-latency", metavar="5ms"),
    option("--min-throughput", type=float, metavar="200"),
    option("--max-memory", metavar="200MB"),
    option("--max-size", metavar="100MB"),
    option("--min-accuracy", multiple=True, metavar="cosine=0.999"),
    option("--max-drop", multiple=True, metavar="validate=0.01"),
    option("--validate", metavar="PKG.MOD:FN"),
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
    for added in reversed(_OPTIONS):
        command = added(command)
    return command


def contract(values: Mapping[str, Any]) -> "Contract":
    """The contract given by the values of the options, by name."""
    from hybridc.compiler.assurance.contract import Contract
    from hybridc.compiler.assurance.limits import parse_limits

    limits = {name: values[name] for name in NAMES}
    for name in ("min_accuracy", "max_drop"):
        limits[name] = parse_limits(limits[name], name.replace("_", " "))
    return Contract(**limits)
