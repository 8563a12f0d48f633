"""A kernel ready to be measured: what its candidates' answers and times are compared with."""

from dataclasses import dataclass, field
from pathlib import Path

from hybridc.compiler.interfaces import Point
from hybridc.compiler.tuning.candidates.drift import Drift
from hybridc.compiler.tuning.candidates.outcome import CandidateResult
from hybridc.compiler.tuning.kernel import Kernel


@dataclass
class Bench:
    """A kernel ready to be measured: its file, what it should compute, and its baseline.

    `point` is the baseline's, `looks` are the times of it that the round under way took, and
    `lowered` says that these are far below those of before.
    """

    kernel: Kernel
    file: Path
    wanted: Path
    limit: float
    drift: Drift = field(default_factory=Drift)
    baseline: Path | None = None
    point: Point = field(default_factory=dict[str, int])
    looks: list[CandidateResult] = field(default_factory=list[CandidateResult])
    lowered: bool = False
