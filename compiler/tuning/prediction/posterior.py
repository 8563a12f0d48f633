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
        return _matern(_apart(one, other), self.error, self.length)


def fitted(points: Sequence[Point], expected: Floats, seconds: Floats) -> Posterior:
    """The posterior after trials; a failure, NaN, counts as twice the slowest.

    Raises ValueError if no trial is known to have ended well.
    """
    if not np.isfinite(seconds).any():
        raise ValueError("no trial ended well")
    worst = 2 * np.nanmax(seconds)
    here = coordinates(points)
    times = np.log(np.where(np.isfinite(seconds), seconds, worst))
    trust = np.asarray(_TRUST)
    residuals = times[:, None] - trust * expected[:, None]
    return _likeliest(here, residuals)


def coordinates(points: Sequence[Point]) -> Floats:
    """Logarithms of the knobs `[n, knobs]`, in doublings."""
    rows = [[value for _, value in sorted(point.items())] for point in points]
    values = np.asarray(rows, np.float64)
    return np.asarray(np.sign(values) * np.log2(1 + np.abs(values)), np.float64)


def _likeliest(here: Floats, residuals: Floats) -> Posterior:
    """The posterior under the error, length and trust that make the trials most likely.

    `residuals` `[n, trusts]` are what is left of the times by each trust.
    """
    scales = list(itertools.product(_ERRORS, _LENGTHS))
    apart = _apart(here, here)
    covariance = np.stack([_matern(apart, *scale) for scale in scales])
    root = np.linalg.cholesky(covariance + _NOISE**2 * np.eye(len(here)))
    right = np.column_stack([np.ones(len(here)), residuals])
    solved = np.linalg.solve(root, np.broadcast_to(right, (len(scales), *right.shape)))
    ones, whitened = solved[:, :, :1], solved[:, :, 1:]  # [scales, n, 1] and [scales, n, trusts]
    offset = (ones * whitened).sum(axis=1) / (ones**2).sum(axis=1)
    whitened = whitened - offset[:, None] * ones
    volume = np.log(np.diagonal(root, axis1=1, axis2=2)).sum(axis=1)
    believed = -0.5 * (whitened**2).sum(axis=1) - volume[:, None] + _prior(scales)
    scale, trust = np.unravel_index(int(believed.argmax()), believed.shape)
    error, length = scales[scale]
    return Posterior(
        coordinates=here,
        error=error,
        length=length,
        offset=float(offset[scale, trust]),
        trust=_TRUST[trust],
        _root=root[scale],
        _whitened=whitened[scale, :, trust],
    )


def _prior(scales: Sequence[tuple[float, float]]) -> Floats:
    """What is believed of errors and lengths, and of trust, before any trial `[scales, trusts]`."""
    error, length = np.asarray(scales).T
    unusual = np.log(error / _USUAL_ERROR) ** 2 + np.log(length / _USUAL_LENGTH) ** 2
    doubt = _LOYALTY * (1 - np.asarray(_TRUST))
    return np.asarray(-0.5 * unusual[:, None] / _SPREAD**2 - doubt, np.float64)


def _solved(root: Floats, right: Floats) -> Floats:
    return np.asarray(np.linalg.solve(root, right), np.float64)


def _apart(one: Floats, other: Floats) -> Floats:
    """Distances of points `[n, m]`."""
    return np.asarray(np.sqrt(((one[:, None] - other[None]) ** 2).sum(axis=2)), np.float64)


def _matern(apart: Floats, error: float, length: float) -> Floats:
    """Matérn covariance of smoothness 5/2 of points that lie so far apart."""
    far = apart * np.sqrt(5) / length
    return np.asarray(error**2 * (1 + far + far**2 / 3) * np.exp(-far), np.float64)
