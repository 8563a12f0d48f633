"""What a compilation's course works with: candidates, the means to make them, what came of each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from hybridc.compiler.assurance.contract import Measured
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.orchestration.gains import Facts
from hybridc.compiler.orchestration.stages import Stage
from hybridc.compiler.quantization.operator_times import Seconds
from hybridc.compiler.quantization.sensitivity import Lowered


class Candidate(Protocol):
    """What compiling gives, as far as decisions need it."""

    @property
    def measured(self) -> Measured:
        """What was measured of it."""
        ...

    @property
    def sensitive(self) -> Lowered | None:
        """The products that quantisation may leave out again, where it took any."""
        ...


Result = TypeVar("Result", bound=Candidate)
Attempt = Callable[[Options], Result]


def _nothing(_: Sequence[Options]) -> None:
    """Prepare nothing."""


def _as_told(_: object) -> None:
    """Measure nothing."""


def _unknown(_: object) -> Facts | None:
    """Know nothing."""
    return None


def _untimed(_: object) -> Seconds:
    """Time nothing."""
    return {}


def _no_turns(_: object, __: object) -> None:
    """Compare nothing anew."""


def _as_it_is(found: Result) -> Result:
    """Time nothing anew."""
    return found


@dataclass(frozen=True)
class Means(Generic[Result]):
    """What a course works with.

    `attempt` compiles, verifies and measures with given options; `prepare` compiles several side by
    side, so that attempts of them have only to measure; `facts` analyses a result, and `kernels`
    times its kernels, by their FLOPs; `sensitise` measures what each of its products in less
    precision does to the output.  `in_turns` measures two results anew, call by call in turns,
    as far as time goes, and `retimed` a single one.
    """

    attempt: Attempt[Result]
    prepare: Callable[[Sequence[Options]], None] = _nothing
    facts: Callable[[Result], Facts | None] = _unknown
    kernels: Callable[[Result], Seconds] = _untimed
    sensitise: Callable[[Result], None] = _as_told
    in_turns: Callable[[Result, Result], tuple[Measured, Measured] | None] = _no_turns
    retimed: Callable[[Result], Result] = _as_it_is


@dataclass(frozen=True)
class Tried(Generic[Result]):
    """A stage that was tried: the options that it made, and what came of them.

    `failed` is why there is no result.  Where it was narrowed, `whole` is what came of it before,
    and `told` what was left out.  `gained` is the log-speedup over what stood, by turns where there
    was doubt.  `predicted` is what was expected of it, if anybody asked.
    """

    stage: Stage
    options: Options
    seconds: float
    result: Result | None = None
    failed: Exception | None = None
    whole: Result | None = None
    told: str = ""
    gained: float | None = None
    predicted: Mapping[str, Any] | None = None
