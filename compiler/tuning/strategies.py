"""The search strategies, and the search task of a kernel."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hybridc.compiler import plugin
from hybridc.compiler.interfaces import Point, ScheduleRule, SearchTask, Strategy, Trial
from hybridc.compiler.plugin_faults import blaming


def catalogue(files: Sequence[Path] = ()) -> plugin.Catalogue[Strategy]:
    """The plug-ins of `autotune/`, of the entry points `hybridc.autotune`, and of these files."""
    return plugin.catalogue("hybridc.autotune", Strategy, files)


def proposed(
    strategy: Strategy, task: SearchTask, history: Sequence[Trial], budget: int
) -> tuple[Point, ...]:
    """Points that the strategy proposes.  Raises PluginError where somebody else's fails."""
    with blaming(strategy):
        return strategy.propose(task, history, budget)


def search_task(rule: ScheduleRule, match: Any) -> SearchTask:
    """The search task of a kernel that `rule` matched, without hints or a predictor."""
    space = rule.knobs(match)
    return SearchTask(
        space=space,
        default=rule.default(match, match.target),
        canonical=partial(rule.canonical, match),
        match=match,
    )
