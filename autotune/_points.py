"""Shared by the strategies: drawing, changing and crossing points, and places within a space."""

from collections.abc import Iterator, Sequence
from math import inf, isfinite
from random import Random

from hybridc.compiler import plugin
from hybridc.compiler.errors import PluginError
from hybridc.compiler.interfaces import Point, SearchTask, Space, Strategy, Trial


def drawn(space: Space, draw: Random) -> Point:
    """A point drawn evenly."""
    return {knob: draw.choice(values) for knob, values in space.items()}


def endless(task: SearchTask, draw: Random) -> Iterator[Point]:
    """Points drawn evenly, for ever."""
    while True:
        yield drawn(task.space, draw)


def free(space: Space) -> list[str]:
    """The knobs that have a choice."""
    return [knob for knob, values in space.items() if len(values) > 1]


def changed(space: Space, point: Point, draw: Random, far: float = 0.3) -> Point:
    """The point with one knob or more changed: to a neighbouring value, or, `far` as often, to any.

    Every further knob is changed half as often as the one before it.
    """
    knobs = free(space)
    neighbour = dict(point)
    draw.shuffle(knobs)
    for knob in knobs:
        values = space[knob]
        if draw.random() < far:
            neighbour[knob] = draw.choice(values)
        else:
            place = values.index(neighbour[knob]) + draw.choice((-1, 1))
            neighbour[knob] = values[min(max(place, 0), len(values) - 1)]
        if draw.random() < 0.5:
            break
    return neighbour


def crossed(first: Point, second: Point, draw: Random) -> Point:
    """Uniform crossover: each knob from one of the two."""
    return {knob: draw.choice((value, second[knob])) for knob, value in first.items()}


def ranked(history: Sequence[Trial]) -> list[Trial]:
    """From fast to slow, failures last."""
    return sorted(history, key=lambda trial: trial.cost)


def measured(history: Sequence[Trial]) -> list[Trial]:
    """The trials that did not fail."""
    return [trial for trial in history if isfinite(trial.cost)]


def places(space: Space, point: Point) -> list[int]:
    """Where each knob's value stands among its values."""
    return [values.index(point[knob]) for knob, values in space.items()]


def at(space: Space, wanted: Sequence[float]) -> Point:
    """The point nearest to places that may lie between values, or outside."""
    return {
        knob: values[min(max(round(place), 0), len(values) - 1)]
        for (knob, values), place in zip(space.items(), wanted, strict=True)
    }


def at_least(strategy: Strategy, option: str, least: float) -> None:
    """Raise PluginError, in one line, where an option is too small."""
    value = getattr(strategy, option)
    if not least <= value < inf:
        raise PluginError(f"{_name(strategy)}: {option} must be {least} or more, got {value}")


def share(strategy: Strategy, option: str) -> None:
    """Raise PluginError, in one line, where an option lies outside 0 to 1, 1 excluded."""
    value = getattr(strategy, option)
    if not 0 <= value < 1:
        raise PluginError(
            f"{_name(strategy)}: {option} must be at least 0 and below 1, got {value}"
        )


def _name(strategy: Strategy) -> str:
    return plugin.name_of(type(strategy))
