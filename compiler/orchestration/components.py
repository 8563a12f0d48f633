"""The components of the compiler: named groups of stages, each with its own kind of optimiser.

`exact`, which every compilation begins with, is none of them: the others are measured against it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

EXACT = "exact"


@dataclass(frozen=True)
class Component:
    """What a component does, and what lets it do so; `installed` is false where it is yet to come.

    `needs` says what there has to be for it to have stages.
    """

    what: str
    needs: str = ""
    installed: bool = True


COMPONENTS: Mapping[str, Component] = MappingProxyType(
    {
        "neural": Component(
            "tunes kernels, guided by the learned cost model", "trials, or a tier or mode with some"
        ),
        "precision": Component(
            "computes in bf16 and other narrow types",
            "dtype auto, a limit on accuracy, and one on time, memory or size or a strategy that"
            " times calls",
        ),
        "subgraph": Component(
            "leaves out fusions that do not pay on this machine", "a pipeline with such passes"
        ),
        "quantum": Component(
            "chooses layout, backend and precision of the whole graph jointly", installed=False
        ),
        "superopt": Component("rewrites by equality saturation", installed=False),
    }
)
