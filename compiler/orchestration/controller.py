"""What a control strategy implements, and where the existing ones are found."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridc.compiler import plugin
from hybridc.compiler.orchestration.course import Course


@dataclass(frozen=True)
class Controller(plugin.Plugin, ABC):
    """Chooses which stages are tried, and in which order; its fields are its options.

    It decides from what the course knows, and measures nothing itself: `course.go` tries a stage,
    and keeps it or rolls it back.
    """

    timed: bool = False  # whether calls are timed even if no limit needs it

    @abstractmethod
    def run(self, course: Course[Any]) -> None:
        """Try stages of the course until there is a reason to stop.

        The first stage must be tried first, since the others are compared with it.
        """


def catalogue(files: Sequence[Path] = ()) -> plugin.Catalogue[Controller]:
    """The control strategies in `compiler/control/`, in entry points, and in these files."""
    return plugin.catalogue("hybridc.compiler.control", Controller, files)
