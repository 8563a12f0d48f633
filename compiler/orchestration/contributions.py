"""What each component contributed, and what that says of the whole.

The total is the logarithm of the speed-up from the first stage to what stands, as measured.  Each
stage that stayed took its part of it, so that the parts add up to the total:

* the *contribution* of a component is its share of the total log-speedup;
* *hybrid efficiency* is the sum of weight times contribution: the share of the budget that went
  where the speed came from;
* the *fusion score* is the share of the enabled components that succeeded: gave a candidate that
  was compiled, verified and measured, whether it stayed or not.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from hybridc.compiler.orchestration.decisions import KEPT, NOT_NEEDED, Decision

NO_STAGE = "no stage"


@dataclass(frozen=True)
class ComponentResult:
    """What became of a component.

    `verdict` is the best that happened to one of its stages.  `log_speedup` is what its stages took
    off together; None if nothing was timed.
    """

    component: str
    verdict: str
    succeeded: bool
    stages: tuple[str, ...]
    weight: float
    log_speedup: float | None
    contribution: float | None
    seconds: float

    @property
    def speedup(self) -> float | None:
        """How many times as fast it made the model."""
        return None if self.log_speedup is None else math.exp(self.log_speedup)

    def to_json(self) -> dict[str, Any]:
        """As JSON data, without the time that it took."""
        told = {name: value for name, value in vars(self).items() if name != "seconds"}
        return {**told, "stages": list(self.stages), "speedup": self.speedup}


@dataclass(frozen=True)
class Hybrid:
    """How the components of one compilation did together.

    `disturbed` tells that times which this was reckoned from were taken on a machine that was not
    quiet.
    """

    strategy: str
    mode: str | None
    components: tuple[ComponentResult, ...]
    disturbed: bool = False

    @property
    def efficiency(self) -> float | None:
        """The sum of weight times contribution; None if nothing was timed."""
        found = [
            each.weight * each.contribution
            for each in self.components
            if each.contribution is not None
        ]
        return sum(found) if found else None

    @property
    def fusion_score(self) -> float | None:
        """Succeeded by enabled components; None if none was enabled."""
        if not self.components:
            return None
        return sum(each.succeeded for each in self.components) / len(self.components)

    def text(self) -> str:
        """`1.82 times as fast: precision 74 %, neural 26 %; hybrid efficiency 0.5, …`."""
        total = sum(each.log_speedup or 0.0 for each in self.components)
        shares = [
            f"{each.component} {each.contribution:.0%}"
            for each in self.components
            if each.contribution
        ]
        if not shares or self.efficiency is None:
            return ""
        doubt = "; the machine was not quiet, so this says little" if self.disturbed else ""
        return (
            f"{math.exp(total):.3g} times as fast as exact: {', '.join(shares)};"
            f" hybrid efficiency {self.efficiency:.2f}, fusion score {self.fusion_score:.2f}{doubt}"
        )

    def lasting(self) -> "Hybrid":
        """What an artifact keeps: nothing of components none of which was needed.

        An artifact that a lock builds again would tell of others, which nobody needed either.
        """
        idle = all(each.verdict == NOT_NEEDED for each in self.components)
        return replace(self, components=()) if idle else self

    def to_json(self) -> dict[str, Any]:
        """As JSON data."""
        return {
            "strategy": self.strategy,
            "mode": self.mode,
            "contributions": {
                each.component: each.contribution
                for each in self.components
                if each.contribution is not None
            },
            "hybrid_efficiency": self.efficiency,
            "fusion_score": self.fusion_score,
            **({"disturbed": True} if self.disturbed else {}),
            "component_results": [each.to_json() for each in self.components],
        }


def results(
    decisions: Sequence[Decision], enabled: Sequence[str], weights: Mapping[str, float]
) -> tuple[ComponentResult, ...]:
    """The result of each enabled component, from the decisions in their order."""
    steps = _steps(decisions)
    total = sum(steps.values()) if steps else 0.0
    found: list[ComponentResult] = []
    for name in enabled:
        own = [each for each in decisions if each.component == name]
        gained = sum(steps.get(each.stage, 0.0) for each in own) if steps else None
        verdicts = [each.verdict for each in own]
        share = None if gained is None else (gained / total if total > 0 else 0.0)
        result = ComponentResult(
            component=name,
            verdict=KEPT if KEPT in verdicts else next(iter(verdicts), NO_STAGE),
            succeeded=any(each.measured is not None for each in own),
            stages=tuple(each.stage for each in own if each.verdict == KEPT),
            weight=weights.get(name, 0.0),
            log_speedup=gained,
            contribution=share,
            seconds=sum(each.seconds for each in own),
        )
        found.append(result)
    return tuple(found)


def disturbed(decisions: Sequence[Decision]) -> bool:
    """Whether any of the times that are compared was taken on a machine that was not quiet."""
    return any((d.measured or {}).get("disturbed") for d in decisions if d.verdict == KEPT)


def _steps(decisions: Sequence[Decision]) -> dict[str, float]:
    """The log-speedup of each stage that stayed, beside what stood before it; the first is 0."""
    found: dict[str, float] = {}
    before: float | None = None
    for each in decisions:
        now = _latency(each)
        if each.verdict != KEPT or now is None:
            continue
        alone = math.log(before / now) if before else 0.0
        found[each.stage] = (
            alone if before is None or each.log_speedup is None else each.log_speedup
        )
        before = now
    return found


def _latency(decision: Decision) -> float | None:
    told = (decision.measured or {}).get("latency")
    return float(told["value"]) if told and told["value"] else None
