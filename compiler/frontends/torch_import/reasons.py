"""Why a torch model did not come in, in words for people."""

import re
from collections.abc import Sequence

from hybridc.compiler.errors import InputError, first_line
from hybridc.compiler.frontends.torch_import import whereabouts

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# How torch's exporter says that it lacks an operator.
_LACKING = re.compile(
    r"No ONNX function found for <OpOverload\(op='(.*?)', overload='(.*?)'\)>(.*)"
)
# How torch says that Python code, or a shape, needs a value of the data.
_OF_DATA = (
    (re.compile(r"Pending unbacked symbols .*"), "numbers or shapes within depend on the data"),
    (
        re.compile(r"Could not guard on data-dependent expression (.*?) \(unhinted: .*"),
        r"Python code branches on \1, a data-dependent value",
    ),
    (
        re.compile(r"Could not extract specialized integer from (data-dep.*?) \(unhinted: .*"),
        r"Python code needs the number of the \1",
    ),
)
_TENSOR = re.compile(r"(?:Parameter\()?FakeTensor\(\.\.\., ([^()]*\([^()]*\))[^()]*\)+")
_LONGEST = 160
_MOST = 200  # characters of why a module cannot be traced


def reason(error: BaseException) -> str:
    """What went wrong, in one line; exporters wrap it in advice, and in colours."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    line = first_line(_COLOURS.sub("", str(error)), type(error).__name__)
    for torch_says, words in _OF_DATA:
        line = torch_says.sub(words, line)
    return _TENSOR.sub(r"tensor of \1", _LACKING.sub(_lacking, line))


def untraced(error: BaseException) -> str:
    """That a module cannot be traced, why, at which of its lines, and what to do."""
    line = whereabouts.last_line(error)
    why = reason(error)[:_MOST]
    if "functorch tensor" in why:
        why = (
            "torch.func.grad, or another transform of torch.func, of a function that calls a layer"
            f" of the module ({why}); write the derivative out"
        )
    elif "data-dependent" in why:
        why = f"{why}; torch.where and torch.cond decide by data, if no shape depends on them"
    why = f"torch.export cannot trace the module: {why}"
    return f"{why}; at {line}" if line else why


def of_data(operator: str | None, fallback: bool) -> str:
    """The end of a refusal, where an operator's result has a shape that depends on the data."""
    if operator is None:
        return ""
    way = (
        "a mask in torch.where, or torch.topk, keep it fixed"
        if fallback
        else "with --fallback (fallback=True) ONNX Runtime computes it"
    )
    return f"; the shape of what {operator} gives depends on the data: {way}"


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
