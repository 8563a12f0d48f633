"""In what the conditions of a measurement may differ from those that are asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.log import target_fields
from hybridc.compiler.log.keys import Described, differences

# How much a difference matters: a schedule is valid for other tools, and about as good on a
# machine that is a little faster; with other vectors, everything changes.
_WEIGHTS = {
    "mode": 1,
    "toolchain": 2,
    "machine": 4,
    "l3": 8,
    "l2": 16,
    "l1": 32,
    "threads": 64,
    "features": 128,
}
_GREATEST = 1000
# What `tools` lets differ: with other tools, or facts of the machine that were measured anew, the
# same schedule is about as good.
_SOFT = ("toolchain", "machine")


@dataclass(frozen=True)
class Difference:
    """A field in which records are not what was asked for: `threads`, say, or `toolchain.tvm`."""

    name: str
    wanted: Any
    found: Any

    @property
    def weight(self) -> int:
        """How much it matters; the sum over all fields says which records are nearest."""
        return _WEIGHTS.get(self.name.split(".")[0], _GREATEST)

    def __str__(self) -> str:
        if isinstance(self.wanted, list) and isinstance(self.found, list):
            added = [f"+{item}" for item in self.found if item not in self.wanted]
            lacking = [f"-{item}" for item in self.wanted if item not in self.found]
            return f"{self.name}: {' '.join(added + lacking)}"
        found, wanted = (target_fields.shown(self.name, each) for each in (self.found, self.wanted))
        return f"{self.name}: {found} instead of {wanted}"


def between(wanted: Described, found: Described, name: str = "") -> list[Difference]:
    """The fields in which what was found differs; `name` goes before theirs."""
    return [Difference(*each) for each in differences(wanted.data, found.data, name)]


def allowed(differs: Sequence[Difference], near: str) -> bool:
    """Whether schedules made under other conditions count; `near` is that of `plans.Options`."""
    if near in ("never", "any"):
        return near == "any" or not differs
    return all(difference.name.split(".")[0] in _SOFT for difference in differs)
