"""The search strategies, and the search task of a kernel."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hybridc.compiler import plugin
from hybridc.compiler.interfaces import Point, ScheduleRule, SearchTask, Strategy


def catalogue(files: Sequence[Path] = ()) -> plugin.Catalogue[Strategy]:
    """The plug-ins of `autotune/`, of the entry points `hybridc.autotune`, and of these files."""
    return plugin.catalogue("hybridc.autotune", Strategy, files)


def search_task(
    rule: ScheduleRule,
    match: Any,
    hints: Sequence[Point] = (),
    score: Callable[[Sequence[Point]], Sequence[float]] | None = None,
) -> SearchTask:
    """What a strategy may know of the kernel that `rule` matched."""
    space = rule.knobs(match)
    return SearchTask(
        space=space,
        default=rule.default(match, match.target),
        hints=tuple(hints),
        canonical=partial(rule.canonical, match),
        score=score,
        match=match,
    )
