"""Durations, sizes and points as people write them: parsed from text and written as text."""

import contextlib
import re
from collections.abc import Generator, Mapping, Sequence

from hybridc.compiler.errors import InputError

_NUMBER = re.compile(r"\s*(?P<number>[0-9]*\.?[0-9]+)\s*(?P<unit>[a-zA-Z\u00b5]+)\s*")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0, "h": 3600.0}
_BYTES = {
    "B": 1.0,
    "kB": 1e3,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}


def parse_duration(text: str) -> float:
    """Read `250us`, `5ms`, `1s` or `2min` as seconds.  Raises InputError for anything else."""
    return _parse(text, _SECONDS, "a duration", "5ms")


def parse_size(text: str) -> int:
    """Read `800B`, `10MB` or `2GiB` as bytes.  Raises InputError for anything else."""
    return round(_parse(text, _BYTES, "a size", "10MB"))


@contextlib.contextmanager
def of_option(name: str) -> Generator[None]:
    """Let an InputError that is raised within say which option it is of."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{name}: {error}") from None


def format_point(point: Mapping[str, int]) -> str:
    """Write a point of a schedule's space: `rows=4 vectors=2`."""
    return " ".join(f"{knob}={value}" for knob, value in point.items())


def format_duration(seconds: float) -> str:
    """Write seconds in the unit that suits: `5 ms`."""
    unit = _time_unit(seconds)
    return f"{seconds / _SECONDS[unit]:.4g} {unit}"


def format_durations(durations: Sequence[float | None]) -> list[str]:
    """Write seconds to be compared: in the unit that suits the least, to its third digit.

    `-` stands for what is None or 0: nothing was measured.
    """
    least = min(filter(None, durations), default=1.0)
    unit = _time_unit(least)
    scaled = least / _SECONDS[unit]
    digits = sum(scaled < bound for bound in (10, 100))
    return [f"{each / _SECONDS[unit]:.{digits}f} {unit}" if each else "-" for each in durations]


def _time_unit(seconds: float) -> str:
    return next((unit for unit in ("s", "ms", "us") if seconds >= _SECONDS[unit]), "ns")


def format_size(size: float) -> str:
    """Write bytes in the unit that suits: `10 MB`."""
    unit = next((u for u in ("GB", "MB", "kB") if size >= _BYTES[u]), "B")
    return f"{size / _BYTES[unit]:.4g} {unit}"


def format_rate(rate: float) -> str:
    """Write calls per second: `13400 calls/s`."""
    return f"{rate:.4g} calls/s" if rate < 1e4 else f"{rate:.0f} calls/s"


def counted(count: int, noun: str) -> str:
    """Write how many there are: `1 point`, `7 points`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _parse(text: str, units: Mapping[str, float], what: str, example: str) -> float:
    match = _NUMBER.fullmatch(text.replace("\u03bc", "\u00b5"))  # the Greek letter, the sign
    if match is None or match["unit"] not in units:
        names = ", ".join(units)
        raise InputError(f"{text!r} is not {what}; write it like {example} (units: {names})")
    return float(match["number"]) * units[match["unit"]]
