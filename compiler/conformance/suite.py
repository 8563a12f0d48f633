"""What a conformance suite is: cases by somebody else, and what became of each.

A suite is a plug-in, one file in `compiler/conformance/suites/`.  Its cases run in child processes
(see `examiner`), so that one that crashes or hangs is lost alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, ClassVar

from hybridc.compiler.errors import InputError
from hybridc.compiler.plugin import Catalogue, options, text


class Verdict(StrEnum):
    """What became of a case.

    `pass`: right answers by our own kernels alone.  `fallback`: right answers, part of them by
    another runtime.  `unsupported`: refused with a reason.  `error`: an exception that is no
    refusal, a crash, or a time or memory limit.  `wrong`: an answer beyond the case's tolerance.
    """

    PASS = "pass"
    FALLBACK = "fallback"
    UNSUPPORTED = "unsupported"
    ERROR = "error"
    WRONG = "wrong"


@dataclass(frozen=True)
class Entry:
    """A case by name; `group` is what it is counted under, its operator most often."""

    name: str
    group: str


@dataclass(frozen=True)
class Result:
    """What became of a case, why, and which inputs were compiled as constants."""

    name: str
    group: str
    verdict: Verdict
    reason: str = ""
    fixed: tuple[str, ...] = ()
    seconds: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """As the document of `--json` has it."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Result":
        """The inverse of `to_json`."""
        read: dict[str, Any] = {
            **data,
            "verdict": Verdict(data["verdict"]),
            "fixed": tuple(data["fixed"]),
        }
        return cls(**read)


@dataclass(frozen=True)
class Suite(ABC):
    """Lists its cases and runs them, in a child process; made once in each.

    Each case has a fork of that process.  Those that `warm_up` names are run before any is forked,
    so that what they import and keep is there for all.
    """

    packages: ClassVar[tuple[str, ...]]
    warm_up: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def entries(self, core: bool) -> Sequence[Entry]:
        """Every case, or those of the suite's core."""

    def named(self, core: bool, text: str) -> Sequence[Entry]:
        """Those of the entries whose names contain a text; a suite may do without the others."""
        return [entry for entry in self.entries(core) if text in entry.name]

    @abstractmethod
    def examine(self, name: str) -> Result:
        """Compile and run one case, and compare; what is raised is an `error`.

        Raises ModelError if the compiler refuses the case, which is `unsupported`.
        """


def suites() -> Catalogue[Suite]:
    """Every suite known: ours and those of the entry points of the group of that name."""
    return Catalogue("hybridc.compiler.conformance.suites", Suite)


def named(spec: str, fallback: bool) -> str:
    """The text of a suite, such as `onnx-node{engine=ort}`, that takes other runtimes' help or not.

    Raises PluginError if there is no such suite, and InputError if it knows no fallback that
    could be refused.
    """
    suite = suites().create(spec)
    if fallback:
        return text(suite)
    known = {name for name, _, _ in options(type(suite))}
    if "fallback" not in known:
        raise InputError(f"the suite {text(suite)} gets no help that could be refused")
    changes: dict[str, Any] = {"fallback": False}
    return text(replace(suite, **changes))
