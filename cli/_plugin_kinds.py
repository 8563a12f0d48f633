"""The kinds of plug-in beside passes, and where those of each kind are found."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridc.compiler.plugin import Catalogue

OTHERS = ("rules", "strategies", "control", "backends", "peers")


def of(kind: str, files: tuple[Path, ...]) -> "Catalogue[Any]":
    """The plug-ins of one of these kinds: ours, those of entry points, and those in `files`."""
    from hybridc.compiler import plugin
    from hybridc.compiler.interfaces import ScheduleRule
    from hybridc.compiler.measurement import peer
    from hybridc.compiler.offload import backend
    from hybridc.compiler.orchestration import controller
    from hybridc.compiler.tuning import strategies

    match kind:
        case "rules":
            return plugin.catalogue("hybridc.schedules", ScheduleRule, files)
        case "strategies":
            return strategies.catalogue(files)
        case "control":
            return controller.catalogue(files)
        case "backends":
            return backend.backends(files)
        case _:
            return peer.peers()
