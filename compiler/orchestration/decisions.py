"""What became of a stage of the cascade, and why."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hybridc.compiler.errors import HybridcError

# What becomes of a stage: it stays; it was right to leave it out; it could not be compiled at all;
# what stood kept the contract; there was no time; it cannot help this model on this target; the
# component that it belongs to is not there, or has nothing to do here; no more than the noise was
# expected of it.
KEPT, ROLLED_BACK, FAILED = "kept", "rolled back", "failed"
NOT_NEEDED, NO_TIME, SKIPPED = "not needed", "no time", "skipped"
UNCHANGED = "it changes nothing"  # why a stage was rolled back that gave the same artifact
NOT_INSTALLED, NOT_APPLICABLE, NOT_PROMISING = "not installed", "not applicable", "not promising"


@dataclass(frozen=True)
class Decision:
    """What became of a stage of the cascade, and why.

    `log_speedup` is what was gained over what stood: where single measurements left doubt, by calls
    in turns, and so not always the ratio of what was `measured` of both.
    `operators` tells of those that it computes less precisely (see `sensitivity.Operator`).
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
    """Why a stage failed, in one line; what is no error for people carries its name."""
    told = " ".join(str(error).split())
    return told if isinstance(error, HybridcError) else f"{type(error).__name__}: {told}"


def of_stage(name: str, error: Exception) -> Exception:
    """An error for people, with the stage that it is of; another is ours, and stays as it is."""
    if isinstance(error, HybridcError):
        error.args = (f"stage {name}: {error}",)
    return error
