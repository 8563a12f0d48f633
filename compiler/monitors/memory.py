"""Memory: of this process and its children, and of the machine."""

from collections.abc import Sequence

import psutil

from hybridc.compiler.monitors.source import Channel
from hybridc.compiler.processes.process_tree import ProcessTree


class Memory:
    """Resident bytes of the process tree, and bytes that the machine has in use."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        most = float(psutil.virtual_memory().total)
        self.channels: Sequence[Channel] = (
            Channel("memory", "this process tree", "B", most=most),
            Channel("memory", "whole machine", "B", most=most),
        )

    def read(self, seconds: float) -> Sequence[float | None]:
        """Bytes now; what the machine could give without swapping counts as free."""
        system = psutil.virtual_memory()
        return [float(self._tree.resident()), float(system.total - system.available)]

    def totals(self) -> dict[str, float]:
        """Nothing is used up."""
        return {}
