"""Where the time of a compilation goes."""

from collections.abc import Callable, Generator
from contextlib import contextmanager

from hybridc.compiler import plugin
from hybridc.compiler.interfaces import IRModule, Pass
from hybridc.compiler.monitoring.timeline import Timeline
from hybridc.compiler.orchestration.time_budget import TimeBudget
from hybridc.compiler.reporting.report import Stage

Progress = Callable[[str], None]


class Clock:
    """Reports and times the stages, on a timeline too; as an instrument, reports each pass.

    Nothing begins after the budget ends: OutOfTimeError is raised instead.
    """

    def __init__(
        self,
        progress: Progress,
        time_budget: TimeBudget | None = None,
        timeline: Timeline | None = None,
    ) -> None:
        self.stages: list[Stage] = []
        self.time_budget = time_budget or TimeBudget()
        self.timeline = timeline or Timeline()
        self._progress = progress

    @contextmanager
    def stage(self, name: str) -> Generator[None, None, None]:
        """Report a stage, and time its body."""
        self.time_budget.check(f"the step {name!r}")
        self._progress(name)
        with self.timeline.span(name, "stage"):
            yield
        self.stages.append(Stage(name, self.timeline.spans[-1].seconds))

    def tell(self, what: str) -> None:
        """Report what begins within a stage."""
        self.time_budget.check(f"the step {what!r}")
        self._progress(what)

    def before(self, step: Pass, module: IRModule) -> None:
        """Report that a pass begins."""
        self.tell(f"pass {plugin.text(step)}")

    def after(self, step: Pass, before: IRModule, after: IRModule) -> None:
        """Report nothing."""
