"""Limits as people write them: `p99<=8ms`, `cosine>=0.999`, `snr=30dB`, `top1=99%`."""

import re
from collections import defaultdict
from collections.abc import Iterable

from hybridc.compiler.assurance.accuracy import METRICS
from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.text.units import parse_duration

MEDIAN = 50.0
# A percentile beyond would take more than 10,000 calls to bound.
_HIGHEST = 99.9
_LATENCY = re.compile(r"(?:(?P<statistic>[^<=]*)(?:<=?|=))?(?P<limit>.*)", re.DOTALL)
_PERCENTILE = re.compile(r"[pP](?P<percentile>[0-9]+(?:\.[0-9]+)?)")
_LIMIT = re.compile(r"(?P<name>[^<>=]*)(?P<sign>[<>]?)=(?P<value>.*)", re.DOTALL)
ACCURACY, DROP = "min accuracy", "max drop"
_NO_SHARES = ("max-abs", "snr")  # that have a unit of their own
_EXAMPLES = defaultdict(lambda: "neural=0.5", {ACCURACY: "cosine=0.999", DROP: "validate=0.01"})


def parse_latency(text: str, percentile: float = MEDIAN) -> tuple[float, float]:
    """Read `p99<=8ms`, `median=5ms`, `<=5ms` or `5ms` (of `percentile`): that, and seconds."""
    if ">" in text:
        raise InputError(f"a latency can only be limited by <=, got {text!r}")
    match = _LATENCY.fullmatch(text)
    assert match is not None
    if statistic := (match["statistic"] or "").strip():
        percentile = _percentile(statistic)
    return checked_percentile(percentile), parse_duration(match["limit"])


def _percentile(statistic: str) -> float:
    if statistic == "median":
        return MEDIAN
    if match := _PERCENTILE.fullmatch(statistic):
        return float(match["percentile"])
    known = hint(statistic, ("median", "p50", "p90", "p99"))
    raise InputError(f"no statistic of latencies is named {statistic!r}; {known}")


def checked_percentile(percentile: float) -> float:
    """The percentile.  Raises InputError where no measurement could bound it."""
    if not 1 <= percentile <= _HIGHEST:
        raise InputError(
            f"a latency's percentile must be from 1 to {_HIGHEST}, got p{percentile:g}"
        )
    return percentile


def parse_limits(texts: Iterable[str], what: str = ACCURACY) -> dict[str, float]:
    """Read `cosine=0.999` and the like, each name once.

    Accuracies and drops may also be written with the sign of their limit (`cosine>=0.999`), and
    with a unit: `snr=30dB`, `top1=99%`.  Raises InputError, which says `what` they are, where one
    is no number, comes twice, or has the wrong sign.
    """
    found: dict[str, float] = {}
    for text in texts:
        match = _LIMIT.fullmatch(text)
        if match is None:
            raise InputError(f"{what} {text!r} is not a limit; write it like {_EXAMPLES[what]}")
        name, sign, value = match.groups()
        name, value = name.strip(), value.strip()
        if name in found:
            raise InputError(f"{what} {name!r} is given twice")
        _check_sign(name, sign, what)
        found[name] = _number(name, value, what)
    return found


def _check_sign(name: str, sign: str, what: str) -> None:
    if not sign:
        return
    if what not in (ACCURACY, DROP):
        raise InputError(f"{what} {name!r} is set by =, not by {sign}=")
    metric = METRICS.get(name)
    wanted = "<" if what == DROP or (metric is not None and not metric.higher) else ">"
    if sign != wanted:
        raise InputError(f"{what} {name!r} can only be limited by {wanted}=, got {sign}=")


def _number(name: str, text: str, what: str) -> float:
    unit, factor = "", 1.0
    if name == "snr" and text[-2:].casefold() == "db":
        unit = text[-2:]
    elif what in (ACCURACY, DROP) and name not in _NO_SHARES and text.endswith("%"):
        unit, factor = "%", 1e-2
    try:
        return float(text.removesuffix(unit)) * factor
    except ValueError:
        raise InputError(f"{what} {name!r} is a number, got {text!r}") from None
