"""How well a kernel's times were predicted: what models said of its points, and what was measured.

Of both models, the learned one and the rule's own, with what chose the points that were tried.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

from hybridc.compiler.text.tables import table
from hybridc.compiler.text.units import format_point
from hybridc.compiler.tuning.prediction import cost_model
from hybridc.compiler.tuning.tasks import Task

_LEAST = 3  # pairs of numbers, for a rank correlation to say anything
_SHOWN = 4  # points of a kernel, the fastest, besides its default
_MODELS = ("learned", "analytic")
_ALONE = "strategy"


def of(task: Task) -> dict[str, Any]:
    """Kendall's τ of each model, what ranked the points, and all points, the fastest first.

    Times are shares of the default's; None if a model says nothing of them, or a point failed.
    """
    trials = sorted(task.history, key=lambda trial: trial.cost)
    points = [trial.point for trial in trials]
    default = task.default.seconds if task.default else None
    told = {name: _told(task, name, points) for name in _MODELS}
    measured = [t.seconds / default if t.seconds and default else None for t in trials]
    return {
        "ranked_by": _guide(task),
        **{f"tau_{name}": _agreement(told[name], measured) for name in _MODELS},
        "predicted": [
            {"point": dict(point), "learned": learned, "analytic": analytic, "measured": took}
            for point, learned, analytic, took in zip(points, *told.values(), measured, strict=True)
        ],
    }


def text(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table of how the models rank each kernel, and one of its fastest points."""
    ranks = [
        (row["kernel"], row["ranked_by"], *(_number(row[f"tau_{name}"]) for name in _MODELS))
        for row in rows
    ]
    points = [
        (
            row["kernel"],
            *(_number(each[name]) for name in (*_MODELS, "measured")),
            format_point(each["point"]),
        )
        for row in rows
        for each in _shown(row["predicted"])
    ]
    heads = ("kernel", "ranked by", "τ learned", "τ analytic")
    told = [table(heads, ranks), "predicted and measured times, the default's as 1:"]
    return "\n".join([*told, table(("kernel", *_MODELS, "measured", "point"), points)])


def _told(task: Task, name: str, points: Sequence[Any]) -> Sequence[float | None]:
    """What a model says of points, as shares of the default."""
    predictor = task.predictor
    if name == "learned":
        return predictor.learned(points) or [None] * len(points)
    default = predictor.estimate(task.search.default)
    guesses = map(predictor.estimate, points)
    return [guess / default if guess and default else None for guess in guesses]


def _guide(task: Task) -> str:
    """What ranked the points; a strategy may not ask."""
    asked = task.predictor.asked or not task.proposed
    return task.predictor.guide if asked else _ALONE


def _agreement(predicted: Sequence[float | None], measured: Sequence[float | None]) -> float | None:
    """Kendall's τ of what a model says and what was measured; None for too few points."""
    pairs = [each for each in zip(predicted, measured, strict=True) if None not in each]
    if len(pairs) < _LEAST:
        return None
    agreement = cost_model.kendall(*zip(*pairs, strict=True))
    return agreement if isfinite(agreement) else None


def _shown(points: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """The fastest points, and the default."""
    known = [each for each in points if each["measured"] is not None]
    return [*known[:_SHOWN], *(each for each in known[_SHOWN:] if each["measured"] == 1.0)]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
