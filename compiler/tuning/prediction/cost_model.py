"""The learned cost model: gradient-boosted trees that rank the points of a kernel.

Trained by XGBoost (Chen and Guestrin, KDD 2016) on the logarithm of a point's time over that of the
kernel's best, so that kernels of all sizes are comparable.  Fast points weigh more, and each kernel
as the square root of its points.  Pairwise ranking (`rank:pairwise`) ordered kernels that were held
out as well over all points, and worse at the top, which is what a search needs; and differences of
logarithms are what `posterior` corrects by a kernel's own trials.  A model is one UBJSON file with
a hash behind it; nothing is unpickled.
"""

import importlib.util
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from blake3 import blake3
from numpy.typing import ArrayLike, NDArray

from hybridc.compiler import settings
from hybridc.compiler.errors import InputError
from hybridc.compiler.filesystem.files import reason, replacing
from hybridc.compiler.target import Target
from hybridc.compiler.tuning.prediction.features import COLUMNS, Matrix, without_loops

Floats = NDArray[np.float64]
# The models of the package, made by benchmarks/train_cost_model.py: for CPUs that multiply two
# vectors of 512 bits at once, and for all others.
TWO_UNITS, OTHERS = (
    Path(__file__).parent / name for name in ("cost_model_two_units.ubj", "cost_model.ubj")
)
_WIDE = 512  # bits of a vector
_TREES = 500
_MORE = 130  # trees for what the model of the package gets wrong on one's own kernels
_PARAMETERS = {
    "objective": "reg:squarederror",
    # Of seven settings, the best on held-out kernels of both machines, over three deals of folds.
    "eta": 0.06,
    "max_depth": 5,
    "min_child_weight": 1.0,
    "subsample": 0.8,
    "colsample_bytree": 0.5,
    "tree_method": "hist",
    "seed": 0,
    "nthread": 1,  # groups are small, and threads that spin starve what is measured beside them
}
# A value this share of a column's range beyond it is outside; so many columns outside are foreign.
_MARGIN, _FOREIGN = 0.1, 0.05
_RULES = [i for i, name in enumerate(COLUMNS) if name.startswith("rule ")]
_HASH = 32  # bytes of BLAKE3 behind the UBJSON
# A point of e times the best time weighs e^-2 as much: what matters is how fast points compare.
_TOP_HEAVY = 2.0
# A failure counts as so many times the slowest.
_FAILURE = 2.0


@dataclass(frozen=True)
class Group:
    """Points of one kernel: their features `[n, columns]` and seconds `[n]`, NaN for failures."""

    features: Matrix
    seconds: Floats

    @property
    def slowdown(self) -> Floats:
        """Logarithm of the time over the best; a failure is slower than anything."""
        failed = _FAILURE * np.nanmax(self.seconds)
        seconds = np.where(np.isfinite(self.seconds), self.seconds, failed)
        return np.asarray(np.log(seconds / seconds.min()), np.float64)

    @property
    def weight(self) -> Floats:
        """How much each point is to count."""
        return np.asarray(np.exp(-_TOP_HEAVY * self.slowdown) / len(self.seconds) ** 0.5)


@dataclass(frozen=True)
class CostModel:
    """Trees, and the ranges `[columns]` of the features that they learned from."""

    booster: Any
    low: Floats
    high: Floats

    def predict(self, features: Matrix) -> Floats:
        """Logarithms of seconds up to a constant of the kernel: the lower, the faster."""
        import xgboost

        rows = xgboost.DMatrix(features, nthread=1)
        return np.asarray(self.booster.predict(rows), np.float64)

    def knows(self, features: Matrix) -> bool:
        """Whether the features lie where the model learned; else its ranking means nothing.

        A kernel of a rule that it never saw is foreign, however it looks.
        """
        if not (features[:, _RULES] * (self.high[_RULES] > 0)).any(axis=1).all():
            return False
        margin = _MARGIN * (self.high - self.low) + 1e-6
        with np.errstate(invalid="ignore"):
            outside = (features < self.low - margin) | (features > self.high + margin)
        # A column that the model never saw is foreign as well.
        unseen = np.isfinite(features) & ~np.isfinite(self.low)
        return float((outside | unseen).mean()) <= _FOREIGN

    def save(self, path: Path) -> None:
        """Write one UBJSON file, with a hash behind it, whole or not at all."""
        content = bytes(self.booster.save_raw("ubj"))
        with replacing(path) as file:
            file.write(content + blake3(content).digest())


def train(groups: Sequence[Group], trees: int = _TREES) -> CostModel:
    """A model of these kernels.  Raises InputError if there is nothing to learn from."""
    return _trained(_both(groups), trees)


def refined(model: CostModel, groups: Sequence[Group], trees: int = _MORE) -> CostModel:
    """A model with more trees, which learn what it gets wrong on these kernels."""
    return _trained(_both(groups), trees, model)


def own() -> Path:
    """Where the model lies that `hybridc log train` made here; it goes before the package's."""
    return settings.cache_directory() / "cost-model.ubj"


def pretrained(target: Target) -> Path:
    """The package's model for a target.

    One that learned from both kinds of machines ranked the kernels of either worse than one that
    learned from its own kind and from AVX2: its best of 64 points was near the best on 79 % of the
    kernels instead of 88 % (two units) and on 82 % instead of 92 % (one).
    """
    wide = target.vector_bits >= _WIDE and target.machine.fma_per_cycle > 1
    return TWO_UNITS if wide else OTHERS


def best(target: Target) -> tuple[CostModel, str]:
    """One's own model, if it can be used, else that of the package and why, in a line.

    Raises InputError in one line if neither can be used.
    """
    if not os.access(own(), os.F_OK):
        return load(pretrained(target)), ""
    try:
        return load(own()), ""
    except InputError as error:
        return load(pretrained(target)), f"points were ranked by the package's cost model: {error}"


def load(path: Path) -> CostModel:
    """Read a model.  Raises InputError in one line if the file is no model of these features."""
    require_xgboost()
    import xgboost

    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cost model {path}: {reason(error)}") from None
    content, digest = data[:-_HASH], data[-_HASH:]
    if blake3(content).digest() != digest:  # XGBoost ends the process on what is no UBJSON
        raise InputError(f"cost model {path}: damaged, or not a cost model")
    booster = xgboost.Booster({"nthread": 1})
    try:
        booster.load_model(bytearray(content))
    except xgboost.core.XGBoostError:
        raise InputError(
            f"cost model {path}: made by another version of XGBoost; retrain it"
        ) from None
    low, high = (_range(booster, name) for name in ("low", "high"))
    if low is None or high is None or booster.attr("columns") != json.dumps(COLUMNS):
        raise InputError(f"cost model {path}: trained on other features; retrain it")
    return CostModel(booster, low, high)


def note(target: Target) -> str:
    """What keeps the best model from being used for a target, in a line; empty if nothing does."""
    try:
        return best(target)[1]
    except InputError as error:
        return f"points were ranked without the learned cost model: {error}"


def require_xgboost() -> None:
    """Raise InputError if XGBoost is not installed."""
    if importlib.util.find_spec("xgboost") is None:
        raise InputError("the cost model needs XGBoost: pip install 'hybridc[tune]'")


def _both(groups: Sequence[Group]) -> list[Group]:
    """The kernels that teach anything, and once more as candidates look before they are scheduled.

    So those are ranked as well.
    """
    usable = [group for group in groups if np.isfinite(group.seconds).sum() > 1]
    if not usable:
        raise InputError("a cost model needs at least one kernel with two points that ran")
    plain = [Group(without_loops(group.features), group.seconds) for group in usable]
    return [*usable, *plain]


def _trained(groups: Sequence[Group], trees: int, before: CostModel | None = None) -> CostModel:
    """Train, from the start or on top of a model."""
    require_xgboost()
    import xgboost

    features = np.concatenate([group.features for group in groups])
    weight = np.concatenate([group.weight for group in groups])
    data = xgboost.DMatrix(
        features,
        label=np.concatenate([group.slowdown for group in groups]),
        weight=weight / weight.mean(),
        nthread=1,
    )
    booster = xgboost.train(_PARAMETERS, data, trees, xgb_model=before.booster if before else None)
    low, high = _bounds(features)
    if before is not None:
        low, high = np.fmin(low, before.low), np.fmax(high, before.high)
    booster.set_attr(columns=json.dumps(COLUMNS), low=_text(low), high=_text(high))
    return CostModel(booster, low, high)


def _bounds(features: Matrix) -> tuple[Floats, Floats]:
    """Least and greatest of each column; NaN if it has no value."""
    with np.errstate(invalid="ignore"):
        low = np.fmin.reduce(features, axis=0).astype(np.float64)
        return low, np.fmax.reduce(features, axis=0).astype(np.float64)


def _text(values: Floats) -> str:
    return json.dumps([value if isfinite(value) else None for value in values.tolist()])


def _range(booster: Any, name: str) -> Floats | None:
    text = booster.attr(name)
    if text is None:
        return None
    values = [np.nan if value is None else value for value in json.loads(text)]
    return np.asarray(values, np.float64) if len(values) == len(COLUMNS) else None


def kendall(predicted: ArrayLike, measured: ArrayLike) -> float:
    """Kendall's τ-b of two orders (Kendall, Biometrika 1945): 1 agree, -1 reversed, 0 unrelated.

    Pairs with a value that is not finite are left out; NaN if nothing is left to compare.
    """
    one, other = np.asarray(predicted, np.float64), np.asarray(measured, np.float64)
    ok = np.isfinite(one) & np.isfinite(other)
    upper = np.triu_indices(int(ok.sum()), 1)
    first, second = (np.sign(np.subtract.outer(x[ok], x[ok]))[upper] for x in (one, other))
    scale = np.sqrt(float((first != 0).sum()) * float((second != 0).sum()))
    return float((first * second).sum() / scale) if scale else float("nan")
