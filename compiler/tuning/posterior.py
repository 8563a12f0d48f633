"""What a kernel's own trials say of its other points: a Gaussian process over what was expected.

The process is of logarithms of seconds, and lives in logarithms of knobs, so that neighbours by
ratio tell of each other (Rasmussen and Williams, 2006, chapter 2).  Its mean is the prediction of a
cost model, or a part of it, up to a constant; which part, how far that may be off, and how far
apart points still resemble each other, is what makes the trials most likely.  Points are taken in
turn, each where the lower confidence bound is least if those before it had come out as expected
(Desautels et al., JMLR 2014).
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import log

import numpy as np
from numpy.typing import NDArray

from hybridc.compiler.interfaces import Point

Floats = NDArray[np.float64]

# Standard deviations of the model's error, and lengths in doublings of a knob, among which the
# trials choose; noise is that of a median on a quiet machine.
_ERRORS, _LENGTHS, _NOISE = (0.05, 0.1, 0.2, 0.4, 0.8), (0.7, 1.5, 3.0, 6.0), 0.02
# Few trials do not outweigh that models are mostly off by a fifth, and points alike within 1.5
# doublings: the standard deviation of both logarithms.
_USUAL_ERROR, _USUAL_LENGTH, _SPREAD = 0.2, 1.5, 0.7
# Shares of the model's differences that are believed; it takes some evidence not to believe them.
_TRUST, _LOYALTY = (1.0, 0.5, 0.0), 2.0
# Standard deviations that the bound lies below the mean.
_BOLD = 1.0
# Points taken in turn; those behind them are ordered by the bound alone.
_IN_TURN = 16


@dataclass(frozen=True)
class Posterior:
    """What is known after trials of points with the coordinates `[n, knobs]`.

    `_whitened` are the residuals, `_root` is the Cholesky factor of their covariance.
    """

    coordinates: Floats
    error: float
    length: float
    offset: float
    trust: float
    _root: Floats = field(repr=False)
    _whitened: Floats = field(repr=False)

    def order(self, points: Sequence[Point], expected: Floats) -> Floats:
        """The place of each point in the order in which to try them, 0 the first.

        `expected` are the logarithms of seconds that a model expects, up to a constant.
        """
        here = coordinates(points)
        cross = _solved(self._root, self._kernel(self.coordinates, here))
        mean = self.offset + self.trust * expected + cross.T @ self._whitened
        variance = np.maximum(self.error**2 - (cross**2).sum(axis=0), 1e-12)
        bound = mean - _BOLD * np.sqrt(variance)
        places = np.empty(len(points))
        taken: list[int] = []
        rows: list[Floats] = []
        for _ in range(min(_IN_TURN, len(points))):
            current = mean - _BOLD * np.sqrt(variance)
            current[taken] = np.inf
            best = int(current.argmin())
            taken.append(best)
            # Cholesky's next row: how a trial of this point would narrow the others.
            row = self._kernel(here[best : best + 1], here)[0] - cross[:, best] @ cross
            row -= sum((other[best] * other for other in rows), np.zeros(len(points)))
            row /= np.sqrt(variance[best] + _NOISE**2)
            rows.append(row)
            variance = np.maximum(variance - row**2, 1e-12)
        bound[taken] = -np.inf
        places[np.argsort(bound, kind="stable")] = np.arange(len(points))
        places[taken] = np.arange(len(taken))
        return places

    def _kernel(self, one: Floats, other: Floats) -> Floats:
        return _matern(one, other, self.error, self.length)


def fitted(points: Sequence[Point], expected: Floats, seconds: Floats) -> Posterior:
    """The posterior after trials; a failure, NaN, counts as twice the slowest.

    Raises ValueError where no trial is known to have ended well.
    """
    if not np.isfinite(seconds).any():
        raise ValueError("no trial ended well")
    worst = 2 * np.nanmax(seconds)
    here = coordinates(points)
    times = np.log(np.where(np.isfinite(seconds), seconds, worst))
    made = [
        _given(here, times - trust * expected, error, length, trust)
        for error, length, trust in itertools.product(_ERRORS, _LENGTHS, _TRUST)
    ]
    return max(made, key=lambda pair: pair[0])[1]


def coordinates(points: Sequence[Point]) -> Floats:
    """Logarithms of the knobs `[n, knobs]`, in doublings."""
    rows = [[value for _, value in sorted(point.items())] for point in points]
    values = np.asarray(rows, np.float64)
    return np.asarray(np.sign(values) * np.log2(1 + np.abs(values)), np.float64)


def _given(
    here: Floats, residuals: Floats, error: float, length: float, trust: float
) -> tuple[float, Posterior]:
    """How likely the trials are, and the posterior, where these are error and length."""
    covariance = _matern(here, here, error, length) + _NOISE**2 * np.eye(len(here))
    root = np.asarray(np.linalg.cholesky(covariance), np.float64)
    ones = _solved(root, np.ones(len(here)))
    whitened = _solved(root, residuals)
    offset = float(ones @ whitened / (ones @ ones))
    whitened -= offset * ones
    likely = -0.5 * whitened @ whitened - np.log(np.diag(root)).sum()
    unusual = log(error / _USUAL_ERROR) ** 2 + log(length / _USUAL_LENGTH) ** 2
    posterior = Posterior(here, error, length, offset, trust, root, whitened)
    believed = likely - 0.5 * unusual / _SPREAD**2 - _LOYALTY * (1 - trust)
    return float(believed), posterior


def _solved(root: Floats, right: Floats) -> Floats:
    return np.asarray(np.linalg.solve(root, right), np.float64)


def _matern(one: Floats, other: Floats, error: float, length: float) -> Floats:
    """Matérn covariance of smoothness 5/2 `[n, m]`."""
    apart = np.sqrt(((one[:, None] - other[None]) ** 2).sum(axis=2)) * np.sqrt(5) / length
    return np.asarray(error**2 * (1 + apart + apart**2 / 3) * np.exp(-apart), np.float64)
