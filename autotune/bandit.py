"""A bandit over the other strategies, as OpenTuner has one over techniques (Ansel et al., 2014)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from math import log, sqrt
from random import Random

from hybridc.autotune import _points
from hybridc.compiler.errors import PluginError
from hybridc.compiler.interfaces import Point, SearchTask, Strategy, Trial
from hybridc.compiler.tuning import strategies


@dataclass(frozen=True)
class Bandit(Strategy):
    """Give each block of trials to the strategy that has been most successful.

    `arms` are the names of strategies, separated by `+`.  The reward of a strategy is the share of
    its trials that are among the fastest quarter of all, plus a bonus if it was rarely chosen: UCB1
    (Auer et al., 2002) with the weight `explore`.  A proposal stays within a block of `block`
    trials, whose outcome decides who gets the next.
    """

    arms: str = "evolutionary+annealing+genetic+pso"
    block: int = 8
    explore: float = 0.3

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        _points.at_least(self, "block", 1)
        _points.at_least(self, "explore", 0)
        if "bandit" in self._names():
            raise PluginError("bandit: a bandit cannot be an arm of a bandit")
        known = strategies.catalogue()
        for name in self._names():
            known.create(name)

    def propose(self, task: SearchTask, history: Sequence[Trial], budget: int) -> tuple[Point, ...]:
        """Up to `budget` points of the strategy whose turn it is, within its block."""
        arm = self._arm(history)
        count = min(budget, self.block - len(history) % self.block)
        return replace(strategies.catalogue().create(arm), seed=self.seed).propose(
            task, history, count
        )

    def candidates(
        self, task: SearchTask, history: Sequence[Trial], draw: Random
    ) -> Iterable[Point]:
        """Those of the strategy whose turn it is."""
        arm = replace(strategies.catalogue().create(self._arm(history)), seed=self.seed)
        return arm.candidates(task, history, draw)

    def _names(self) -> list[str]:
        return self.arms.split("+")

    def _arm(self, history: Sequence[Trial]) -> str:
        """Whose turn it is.  The blocks before this one were given out by the same rule."""
        names = self._names()
        order = Random(f"{self.seed}").sample(names, len(names))
        played: dict[str, list[float]] = {name: [] for name in order}
        for first in range(0, len(history) + 1, self.block):
            arm = max(order, key=lambda name: self._bound(played[name], first))
            if first + self.block > len(history):
                return arm
            played[arm].append(_reward(history[: first + self.block], self.block))
        raise AssertionError("the last block is never whole")

    def _bound(self, rewards: Sequence[float], trials: int) -> float:
        if not rewards:
            return float("inf")
        blocks = 1 + trials // self.block
        return sum(rewards) / len(rewards) + self.explore * sqrt(2 * log(blocks) / len(rewards))


def _reward(history: Sequence[Trial], count: int) -> float:
    """The share of the last `count` trials among the fastest quarter of all."""
    ranked = _points.ranked(history)
    limit = ranked[len(ranked) // 4].cost
    return sum(trial.cost <= limit < float("inf") for trial in history[-count:]) / count
