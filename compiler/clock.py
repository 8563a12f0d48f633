"""Where the time of a compilation goes."""

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from hybridc.compiler import plugin
from hybridc.compiler.interfaces import IRModule, Pass
from hybridc.compiler.report import Stage

Progress = Callable[[str], None]


class Clock:
    """Tells and times the stages; as an instrument, tells each pass."""

    def __init__(self, progress: Progress) -> None:
        self.stages: list[Stage] = []
        self._progress = progress

    @contextmanager
    def stage(self, name: str) -> Generator[None, None, None]:
        """Time what is done within."""
        self._progress(name)
        start = time.perf_counter()
        yield
        self.stages.append(Stage(name, time.perf_counter() - start))

    def before(self, step: Pass, module: IRModule) -> None:
        """Tell that a pass begins."""
        self._progress(f"pass {plugin.text(step)}")

    def after(self, step: Pass, before: IRModule, after: IRModule) -> None:
        """Nothing to tell."""
