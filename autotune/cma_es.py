"""CMA-ES with margin for integers (Hamano et al., GECCO 2022), as Optuna and cmaes implement it."""

import importlib.util
from dataclasses import dataclass
from typing import Any

from hybridc.autotune import _points
from hybridc.autotune._optuna import OptunaStrategy
from hybridc.compiler.errors import PluginError


@dataclass(frozen=True)
class CmaEs(OptunaStrategy):
    """Adapt the mean and covariance of a normal distribution to the fast points.

    It begins in the middle of the space; `population` points are a generation.
    """

    population: int = 8

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        super().__post_init__()
        _points.at_least(self, "population", 5)
        if importlib.util.find_spec("cmaes") is None:
            raise PluginError("cma-es needs cmaes: pip install 'hybridc[tune]'")

    def sampler(self, seed: int) -> Any:
        """A space of one knob, which CMA-ES cannot adapt to, is drawn evenly."""
        from optuna.samplers import CmaEsSampler

        return CmaEsSampler(
            seed=seed,
            n_startup_trials=0,
            with_margin=True,
            popsize=self.population,
            warn_independent_sampling=False,
        )
