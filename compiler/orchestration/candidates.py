"""What a compilation's course works with: candidates, the functions that make them, the results."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from hybridc.compiler.assurance.contract import Measured
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.orchestration.expected_gains.gains import Facts
from hybridc.compiler.orchestration.stages import Stage
from hybridc.compiler.quantization.operator_times import Seconds
from hybridc.compiler.quantization.sensitivity import Lowered


class Candidate(Protocol):
    """The part of a compilation's result that decisions need."""

    @property
    def measured(self) -> Measured:
        """What was measured of it."""
        ...

    @property
    def sensitive(self) -> Lowered | None:
        """The products that quantisation may leave out again; None if nothing was quantised."""
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
    """The functions that a course works with; tests replace them by simulations.

    `attempt` compiles, verifies and measures with given options; `prepare` compiles several in
    parallel, so that attempting them only measures; `facts` analyses a result, and `kernels` times
    its kernels, by their FLOPs; `sensitise` measures what each product in lower precision does to
    the output.  `in_turns` measures two results again by alternating their calls, if there is time,
    and `retimed` a single one.
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
    """A stage that was tried: its options, and its result.

    `failed` is why there is no result.  If it was narrowed, `whole` is the result before that, and
    `told` says what was left out.  `gained` is the log-speedup over the best so far, measured in
    turns if single measurements left doubt.  `predicted` is the expected gain, if it was asked for.
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
