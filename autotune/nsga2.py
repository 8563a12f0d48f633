"""NSGA-II (Deb et al., IEEE Trans. Evol. Comput. 2002), as Optuna implements it."""

from dataclasses import dataclass
from typing import Any

from hybridc.autotune import _points
from hybridc.autotune._optuna import OptunaStrategy


@dataclass(frozen=True)
class Nsga2(OptunaStrategy):
    """Select, cross and mutate generations of `population` points by non-dominated sorting.

    Time is the only objective, so points are sorted by it.
    """

    population: int = 12

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        super().__post_init__()
        _points.at_least(self, "population", 2)

    def sampler(self, seed: int) -> Any:
        """The sampler with Optuna's own crossover and mutation."""
        from optuna.samplers import NSGAIISampler

        return NSGAIISampler(population_size=self.population, seed=seed)
