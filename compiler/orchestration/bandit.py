"""A bandit that moves the budget to what is paying off now.

Thompson sampling (W. Thompson, Biometrika 25, 1933) with Gaussian arms: what an arm gained in each
turn, as a log-speedup, updates what is believed of its next turn; the turn goes to the one with the
highest draw per second.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from random import Random

from hybridc.compiler.orchestration.expected_gains.gains import Gain

# One turn tells of the next no more than this: what tuning finds first it does not find twice.
_NOISE = 0.05


@dataclass(frozen=True)
class Arm:
    """What is believed of an arm's next turn: its gain, and the seconds that it takes."""

    gain: Gain
    seconds: float

    def after(self, gained: float, seconds: float) -> "Arm":
        """The belief after a turn (the product of two Gaussians)."""
        prior, noise = self.gain.sigma**2, _NOISE**2
        share = prior / (prior + noise)
        mean = self.gain.mean + share * (gained - self.gain.mean)
        sigma = math.sqrt(max(share * noise, 1e-8))
        return Arm(replace(self.gain, mean=mean, sigma=sigma), seconds)


@dataclass
class Bandit:
    """Beliefs of all arms; `seed` makes the draws repeatable."""

    arms: dict[str, Arm]
    seed: int = 0
    turns: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self._draw = Random(self.seed)

    def offer(self, name: str, gain: Gain, seconds: float) -> None:
        """Believe this of an arm, unless something was learnt of it."""
        if name not in self.turns:
            self.arms[name] = Arm(gain, seconds)

    def choose(self, names: Sequence[str]) -> str:
        """The arm that gets the next turn."""
        drawn = {name: self._rate(self.arms[name]) for name in names}
        return max(names, key=lambda name: drawn[name])

    def learn(self, name: str, gained: float, seconds: float) -> None:
        """Hear what a turn gained, 0 where it was rolled back or failed; of no arm, nothing."""
        if name not in self.arms:
            return
        self.turns.append(name)
        self.arms[name] = self.arms[name].after(gained, max(seconds, 1e-3))

    def shares(self) -> Mapping[str, int]:
        """How many turns each arm got."""
        return {name: self.turns.count(name) for name in self.arms}

    def _rate(self, arm: Arm) -> float:
        return self._draw.gauss(arm.gain.mean, arm.gain.sigma) / max(arm.seconds, 1e-3)
