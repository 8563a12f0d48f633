"""The options that form a contract."""

from collections.abc import Callable
from typing import Any

from hybridc.cli._options import option

_OPTIONS = (
    option("--max-latency", metavar="5ms"),
    option("--min-throughput", type=float, metavar="200"),
    option("--max-memory", metavar="200MB"),
    option("--max-size", metavar="100MB"),
    option("--min-accuracy", multiple=True, metavar="cosine=0.999"),
    option("--max-drop", multiple=True, metavar="validate=0.01"),
    option("--validate", metavar="PKG.MOD:FN"),
)


def contract_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add these options to a command."""
    for added in reversed(_OPTIONS):
        command = added(command)
    return command
