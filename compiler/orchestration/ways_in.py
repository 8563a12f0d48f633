"""A model compiled by another of the roads by which it can come in, where one of them fails.

A road that imports a model may still compute something else, or what a pass cannot take.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from hybridc.compiler.errors import HybridcError, ModelError, PassError, WrongAnswerError
from hybridc.compiler.model import Model

Found = TypeVar("Found")


def by_any(
    load: Callable[[tuple[str, ...]], Model], finish: Callable[[Model], Found], rounded: bool
) -> Found:
    """What `finish` makes of a model that `load` gives without the roads that it is told to leave.

    The model's notes tell which roads failed by then.  Raises what the first of them raised, with
    what became of the others; at once for a model that comes in by no other road, and for a wrong
    answer if it is `rounded`: by any road it would be too coarse.
    """
    failed: dict[str, HybridcError] = {}
    while True:
        try:
            model = load(tuple(failed))
        except ModelError as error:
            raise _all(failed, error) from error
        told = tuple(f"failed by way of {road}: {error}" for road, error in failed.items())
        try:
            return finish(replace(model, notes=(*told, *model.notes)))
        except (ModelError, PassError, WrongAnswerError) as error:
            if not model.road or (rounded and isinstance(error, WrongAnswerError)):
                raise
            failed[model.road] = error


def _all(failed: dict[str, HybridcError], last: ModelError) -> HybridcError:
    """The first failure, in which all are told."""
    if not failed:
        return last
    (road, first), *others = failed.items()
    texts = [f"{first} (by way of {road})", *(f"by way of {name}: {e}" for name, e in others)]
    return type(first)("; ".join([*texts, f"no other way in: {last}"]))
