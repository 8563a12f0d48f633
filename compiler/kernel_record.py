"""What a compilation remembers of a kernel that was scheduled."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class KernelRecord:
    """How one kernel was scheduled: the rule and point that won, and why other rules did not.

    `flops` and `bytes` are of one call: what it computes, and the size of its arguments;
    `precision` (fp32, bf16, int8) is what its products are multiplied in.  `workload` is the key
    of what it computes (see `log.keys`), empty where it has none.  `launches` tell of a GPU's
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
