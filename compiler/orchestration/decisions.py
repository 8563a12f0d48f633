"""What became of a stage of the cascade, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.errors import HybridcError

# In this order: it is kept; it does not pay; it could not be compiled; the contract was kept
# without it; there was no time; it cannot help this model on this target; its component is not
# installed, or has nothing to do here; its expected gain is within the noise.
KEPT, ROLLED_BACK, FAILED = "kept", "rolled back", "failed"
NOT_NEEDED, NO_TIME, SKIPPED = "not needed", "no time", "skipped"
UNCHANGED = "it changes nothing"  # the reason if a stage gave the same artifact
NOT_INSTALLED, NOT_APPLICABLE, NOT_PROMISING = "not installed", "not applicable", "not promising"


@dataclass(frozen=True)
class Decision:
    """What became of a stage of the cascade, and why.

    `log_speedup` is the gain over the best so far.  If single measurements left doubt it comes from
    alternating calls, so it is not always the ratio of the two `measured` times.
    `operators` are those that it computes less precisely (see `sensitivity.Operator`).
    """

    stage: str
    verdict: str
    reason: str = ""
    seconds: float = 0.0
    measured: Mapping[str, Any] | None = None
    component: str = ""
    predicted: Mapping[str, Any] | None = None
    operators: Mapping[str, Any] | None = None
    log_speedup: float | None = None

    def to_json(self) -> dict[str, Any]:
        """What was decided, as JSON data, without the time that it took."""
        return {name: value for name, value in vars(self).items() if name != "seconds"}


def said(error: Exception) -> str:
    """Why a stage failed, in one line; with the class of the error unless it is a HybridcError."""
    told = " ".join(str(error).split())
    return told if isinstance(error, HybridcError) else f"{type(error).__name__}: {told}"


def of_stage(name: str, error: Exception) -> Exception:
    """A HybridcError with the stage's name in its message; any other error unchanged."""
    if isinstance(error, HybridcError):
        error.args = (f"stage {name}: {error}",)
    return error
