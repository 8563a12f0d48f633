"""Predictions corrected by what stages gained in earlier compilations on this machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hybridc.compiler.orchestration.expected_gains.gains import Facts, Gain, Predictor
from hybridc.compiler.orchestration.expected_gains.history import Past
from hybridc.compiler.orchestration.stages import Stage

_MOST = 300  # rows; the matrix of these is solved in milliseconds
_NOISE = 0.03  # of a measured log-speedup
_LENGTH = 2.0  # in features: models within a factor of e² in size are alike


@dataclass(frozen=True)
class Corrected:
    """A predictor corrected by what was gained before.

    What the prior was off by is a Gaussian process over the features of models, whose prior
    deviation is the prior's own doubt (C. Rasmussen, C. Williams: Gaussian Processes for Machine
    Learning, 2006, algorithm 2.1).
    """

    prior: Predictor
    past: Sequence[Past] = field(default_factory=tuple[Past, ...])

    def predict(self, stage: Stage, facts: Facts) -> Gain:
        """The posterior; the prior where nothing like it was ever compiled."""
        expected = self.prior.predict(stage, facts)
        rows = [each for each in self.past if each.stage == stage.name]
        rows = [each for each in rows if each.machine == facts.machine][-_MOST:]
        if not rows or not expected.sigma:
            return expected
        return _posterior(expected, rows, facts.features())


def _posterior(expected: Gain, rows: Sequence[Past], features: tuple[float, ...]) -> Gain:
    import numpy as np

    known = np.array([each.features for each in rows])
    off = np.array([each.gained - each.expected for each in rows])

    def covariance(one: Any, other: Any) -> Any:
        squares = ((one[:, None, :] - other[None, :, :]) ** 2).sum(axis=2)
        return expected.sigma**2 * np.exp(-squares / (2 * _LENGTH**2))

    here = covariance(np.array([features]), known)[0]
    solved = np.linalg.solve(covariance(known, known) + _NOISE**2 * np.eye(len(rows)), here)
    variance = expected.sigma**2 - float(solved @ here)
    source = f"{expected.source} and {len(rows)} earlier compilations"
    return Gain(expected.mean + float(solved @ off), math.sqrt(max(variance, 1e-6)), source)
