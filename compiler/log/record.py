"""One measurement of one point of a rule's space, and when it is fit to be kept."""

import dataclasses
import getpass
import json
import math
import os
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from blake3 import blake3

from hybridc.compiler.errors import InputError
from hybridc.compiler.interfaces import Point

KEY_DIGITS = 64  # of every key: 256 bits in hexadecimal
_TEXT = 200  # characters of a rule, a mode, a name
_DIGITS = frozenset("0123456789abcdef")
BIGGEST = 2**63 - 1  # of whole numbers: databases keep 64 bits


class Verdict(StrEnum):
    """How a measurement ended; only `ok`, an answer that was checked, may win.

    `refused`: the rule's schedule or the build raised; `memory`: it took more than it was given;
    `unchecked`: it ran, but nobody compared its answer, as in the logs of other tuners.
    """

    OK = "ok"
    WRONG = "wrong"
    CRASH = "crash"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    REFUSED = "refused"
    UNCHECKED = "unchecked"


@dataclass(frozen=True, kw_only=True)
class Record:
    """What was measured of one kernel at one point.

    `workload`, `target` and `toolchain` are keys (see `log.keys`).  `seconds` are the samples, each
    of one call; `mode` says in which state of the caches (`warm`, `cold`), or that a model ran the
    kernel (see `in_model`); `predicted` is what the cost model said beforehand, in seconds.  `when`
    is Unix time, `who` the writer, `seed` that of the search.  `trace` holds TVM's record (see
    `log.tvm_database`) where the rule is TVM's own search, which has no knobs.
    """

    workload: str
    target: str
    toolchain: str
    rule: str
    point: Point
    verdict: Verdict
    seconds: tuple[float, ...] = ()
    mode: str = "warm"
    predicted: float | None = None
    when: float
    who: str
    seed: int
    trace: str = ""

    @cached_property
    def key(self) -> str:
        """The record's own key, of all that it says: equal records are one record."""
        return digest(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """The record as JSON data."""
        data = {name: getattr(self, name) for name in FIELDS}
        return {**data, "point": dict(self.point), "seconds": list(self.seconds)}


FIELDS = tuple(field.name for field in dataclasses.fields(Record))
_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def in_model(state: str) -> str:
    """The mode of times taken while a model ran that leaves the caches in this state."""
    return f"model-{state}"


def broken(verdicts: Collection[Verdict]) -> Verdict | None:
    """Which of all verdicts on a point forbids its use; a crash does unless it also ran well."""
    if Verdict.WRONG in verdicts:
        return Verdict.WRONG
    crashed = Verdict.CRASH in verdicts and Verdict.OK not in verdicts
    return Verdict.CRASH if crashed else None


def canonical(data: Any) -> str:
    """JSON data as text that depends on nothing but the data."""
    return _ENCODER.encode(data)


def digest(data: Any) -> str:
    """The key of JSON data."""
    return blake3(canonical(data).encode()).hexdigest()


def from_json(data: object) -> Record:
    """Read what `to_json` wrote.  Raises InputError with the first thing that is wrong."""
    if not isinstance(data, Mapping):
        raise InputError(f"a record is a JSON object, got {data!r:.60}")
    if strange := sorted(set(map(str, data)) - {*FIELDS}):
        raise InputError(f"a record has no field {strange[0]!r}; known: {', '.join(FIELDS)}")
    try:
        given = dict(data)
        given["verdict"] = Verdict(given["verdict"])
        given["seconds"] = tuple(given.get("seconds", ()))
        record = Record(**given)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(f"not a record: {error}") from None
    if wrong := fault(record):
        raise InputError(wrong)
    return record


def fault(record: Record) -> str | None:
    """What makes a record unfit to be kept, or None: one clause, the field first."""
    return next((found for check in _CHECKS if (found := check(record))), None)


def _keys(record: Record) -> str | None:
    for name in ("workload", "target", "toolchain"):
        value: object = getattr(record, name)
        if not isinstance(value, str) or len(value) != KEY_DIGITS or set(value) - _DIGITS:
            return f"{name} is not a key of {KEY_DIGITS} hexadecimal digits: {value!r:.40}"
    return None


def _texts(record: Record) -> str | None:
    for name in ("rule", "mode", "who"):
        value: object = getattr(record, name)
        if not isinstance(value, str) or not 0 < len(value) <= _TEXT or not value.isprintable():
            return f"{name} is not a text of 1 to {_TEXT} printable characters: {value!r:.40}"
    trace = record.trace
    if not _is(trace, str) or "\0" in trace:
        return f"trace is not text: {record.trace!r:.40}"
    return None


def _point(record: Record) -> str | None:
    point = record.point
    if not _is(point, Mapping):
        return f"point is not a mapping of knobs: {point!r:.40}"
    for knob, value in point.items():
        if not _is(knob, str) or not _whole(value):
            return f"point gives no whole number to a knob: {knob!r:.40} = {value!r:.40}"
    return None


def _times(record: Record) -> str | None:
    for name in ("seconds", "predicted"):
        value = getattr(record, name)
        samples = value if name == "seconds" else (() if value is None else (value,))
        if bad := [sample for sample in samples if not _duration(sample)]:
            return f"{name} holds no finite, positive time: {bad[0]!r:.40}"
    if record.verdict is Verdict.OK and not record.seconds:
        return "seconds is empty, though the verdict is ok"
    return None


def _rest(record: Record) -> str | None:
    if not _is(record.verdict, Verdict):
        return f"verdict is one of {', '.join(Verdict)}, not {record.verdict!r:.40}"
    if not _duration(record.when):
        return f"when is no Unix time: {record.when!r:.40}"
    return None if _whole(record.seed) else f"seed is not a whole number: {record.seed!r:.40}"


_CHECKS = (_keys, _texts, _point, _rest, _times)


def _is(value: object, kind: type) -> bool:
    """What the types promise, and data from outside may not keep."""
    return isinstance(value, kind)


def _duration(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return math.isfinite(value) and value > 0


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= BIGGEST


def who() -> str:
    """Who measures: the user and the machine, as records name them."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container may have no name for its user
        user = str(os.getuid())
    return f"{user}@{platform.node()}"
