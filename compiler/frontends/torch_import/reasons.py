"""Why a torch model did not come in, in words for people."""

import re
from collections.abc import Sequence

from hybridc.compiler.errors import InputError, first_line

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# How torch's exporter says that it lacks an operator.
_LACKING = re.compile(
    r"No ONNX function found for <OpOverload\(op='(.*?)', overload='(.*?)'\)>(.*)"
)
_LONGEST = 160


def reason(error: BaseException) -> str:
    """What went wrong, in one line; exporters wrap it in advice, and in colours."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    line = first_line(_COLOURS.sub("", str(error)), type(error).__name__)
    return _LACKING.sub(_lacking, line)


def _lacking(found: re.Match[str]) -> str:
    packet, overload, more = found.groups()
    kind = " of complex numbers" if "complex-valued" in more else ""
    return f"operator '{packet}.{overload}'{kind} is not supported"


def each(failed: Sequence[tuple[str, str]]) -> list[str]:
    """A line for each road that failed and its reason, but for the same reason again."""
    roads: dict[str, str] = {}
    for road, why in failed:
        roads.setdefault(why[:_LONGEST], road)
    return [f"{road}: {why}" for why, road in roads.items()]
