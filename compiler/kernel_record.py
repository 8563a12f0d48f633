"""What a compilation remembers of a kernel that was scheduled, and kernels to choose between."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from hybridc.compiler.text.units import format_point

State = Literal["warm", "cold"]  # of the caches when a kernel is called

# How notes begin that tell of a rule's default which a tuning found to fail, and how it fails.
FAULTY = "faulty default:"
_FAILS = MappingProxyType({"wrong": "computes something wrong", "crash": "crashes"})


def faulty(kernel: str, rule: str, point: Mapping[str, int], fault: str) -> str:
    """The beginning of such a note; `fault` is the verdict of a record, `wrong` or `crash`."""
    return f"{FAULTY} {kernel} by rule {rule} at {format_point(point)} {_FAILS[fault]}"


@dataclass(frozen=True)
class KernelRecord:
    """How one kernel was scheduled: the rule and point that won, and why other rules did not.

    `flops` and `bytes` are of one call: what it computes, and the size of its arguments;
    `precision` (fp32, bf16, int8) is what its products are multiplied in.  `workload` is the key
    of what it computes (see `log.keys`), empty if it has none.  `launches` tell of a GPU's
    kernel what it takes there (see `cuda.resources`).
    """

    kernel: str
    rule: str
    point: Mapping[str, int]
    refused: Mapping[str, str]
    flops: int = 0
    bytes: int = 0
    precision: str = "fp32"
    workload: str = ""
    launches: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Alternatives:
    """Kernels that compute the same by other rules; that which analysis likes best is the first.

    They are not scheduled yet; `algorithms` name them, and `workloads` are their keys (see
    `log.keys`).  They compare as a model runs them by times with its caches in the state `mode`.
    """

    name: str
    algorithms: tuple[str, ...]
    rules: tuple[str, ...]
    kernels: tuple[Any, ...] = field(repr=False)
    workloads: tuple[str, ...]
    mode: State = "cold"
