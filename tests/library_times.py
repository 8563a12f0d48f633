"""Times of vendor libraries that nobody measured, so that what is decided by them is the same."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from hybridc.compiler.measurement import measure
from hybridc.compiler.offload import choice, whole_model


class Turns:
    """Takes the place of timing: calls each once, and says how long they take."""

    def __init__(self, kernel: float, model: float) -> None:
        """`kernel` and `model` are the library's times; ours are 1."""
        self.kernel, self.model, self.asked = kernel, model, 0

    def alone(self, calls: Sequence[Callable[[], object]], **_: Any) -> list[tuple[float, ...]]:
        self.asked += 1
        for call in calls:
            call()
        return [(1.0,), *((self.kernel,) for _ in calls[1:])]

    def together(self, calls: Sequence[Callable[[], object]], **_: Any) -> list[tuple[float, ...]]:
        self.asked += 1
        return [(self.model,), (1.0,)]


def make_up(patch: pytest.MonkeyPatch, kernel: float, model: float = 0.5) -> Turns:
    """Let a library take so long for each kernel and for the whole model, and our kernels 1."""
    turns = Turns(kernel, model)

    class Alone:
        in_turns = staticmethod(turns.alone)
        latency = staticmethod(lambda *_, **__: measure.Samples((1.0,)))

    class Together:
        in_turns = staticmethod(turns.together)

    patch.setattr(choice, "measure", Alone)
    patch.setattr(whole_model, "measure", Together)
    return turns
