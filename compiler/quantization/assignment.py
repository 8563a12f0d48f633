"""Which operator is computed in which precision: the fastest assignment within a bound on error.

An `Assigner` answers for the whole model at once.  The greedy one starts from the fastest choice of
every operator, takes back what costs least for the error it removes, and gives back what there is
room for in the end; a solver of the whole
problem, a knapsack with multiple choices, may stand in its place.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import inf
from typing import Protocol


@dataclass(frozen=True)
class Choice:
    """A precision of one operator: seconds that it is predicted to take, error that it adds.

    Errors are shares of the output's energy, so that those of independent operators add up.
    """

    precision: str
    cost: float
    error: float


@dataclass(frozen=True)
class Operator:
    """An operator, and the precisions that it may be computed in, the most precise first."""

    name: str
    choices: tuple[Choice, ...]


Assignment = Mapping[str, Choice]


class Assigner(Protocol):
    """Chooses a precision for each operator."""

    def assign(self, operators: Sequence[Operator], bound: float) -> Assignment:
        """The fastest choices, by operator, whose errors add up to `bound` at most.

        Where even the most precise choices exceed it, these.
        """
        ...


@dataclass(frozen=True)
class Greedy:
    """Takes back precision by precision, the one with most error for its time first."""

    def assign(self, operators: Sequence[Operator], bound: float) -> Assignment:
        """The fastest choices as far as they go; never more than linear in them from the best."""
        chosen = {each.name: min(each.choices, key=_fastest) for each in operators}
        while sum(choice.error for choice in chosen.values()) > bound:
            steps = [
                (_worth(chosen[each.name], better), each.name, better)
                for each in operators
                for better in each.choices
                if better.error < chosen[each.name].error
            ]
            if not steps:
                break
            _, name, better = max(steps, key=lambda step: step[0])
            chosen[name] = better
        return _given_back(chosen, operators, bound)


def _given_back(
    chosen: dict[str, Choice], operators: Sequence[Operator], bound: float
) -> dict[str, Choice]:
    """Faster choices for which the bound has room after all, the most seconds first."""
    room = bound - sum(choice.error for choice in chosen.values())
    while True:
        steps = [
            (chosen[each.name].cost - faster.cost, each.name, faster)
            for each in operators
            for faster in each.choices
            if faster.cost < chosen[each.name].cost
            and faster.error - chosen[each.name].error <= room
        ]
        if not steps:
            return chosen
        _, name, faster = max(steps, key=lambda step: step[0])
        room -= faster.error - chosen[name].error
        chosen[name] = faster


def _fastest(choice: Choice) -> tuple[float, float]:
    return choice.cost, choice.error


def _worth(now: Choice, better: Choice) -> tuple[float, float]:
    """How much error a change removes for each second that it costs, and the error itself."""
    removed, cost = now.error - better.error, better.cost - now.cost
    return (removed / cost if cost > 0 else inf, removed)
