"""Tree-structured Parzen estimator (Bergstra et al., NeurIPS 2011), as Optuna implements it."""

from dataclasses import dataclass
from typing import Any, ClassVar

from hybridc.autotune import _points
from hybridc.autotune._optuna import OptunaStrategy


@dataclass(frozen=True)
class Tpe(OptunaStrategy):
    """Sample where fast points are dense and slow ones are not (tree-structured Parzen estimator).

    The first `startup` points are drawn uniformly.
    """

    startup: int = 8
    replays: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Refuse options that make no sense."""
        super().__post_init__()
        _points.at_least(self, "startup", 0)

    def sampler(self, seed: int) -> Any:
        """Knobs drawn jointly; points that are not measured yet count as slow."""
        from optuna.samplers import TPESampler

        return TPESampler(
            seed=seed, n_startup_trials=self.startup, multivariate=True, constant_liar=True
        )
