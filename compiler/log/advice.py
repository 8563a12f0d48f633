"""A tuning log as the advice of a compilation: its winners go before the rules' defaults."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from hybridc.compiler.errors import LogError, MissingRecordError
from hybridc.compiler.interfaces import Point, Usable
from hybridc.compiler.kernel_record import Alternatives
from hybridc.compiler.log import conditions
from hybridc.compiler.log.conditions import Difference
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.lookup import Hit, Miss, Near
from hybridc.compiler.log.record import broken, in_model
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.log.winner import Measured

_SHOWN = 5  # kernels named in an error
# A kernel that analysis did not choose has to gain more than the noise, and what may differ in a
# network, where something is fused into it.
_CLEARLY = 0.05
Counted = tuple[tuple[str, str], float]  # target and toolchain, seconds


@dataclass
class LogAdvice:
    """Answers from a log for one compilation, and an account of them.

    `near` and `frozen` are those of `plans.Options`.
    """

    log: TuningLog
    target: Described
    toolchain: Described
    near: str = "tools"
    frozen: bool = False
    found: dict[str, Hit | Near | Miss] = field(default_factory=dict[str, Hit | Near | Miss])
    missing: list[str] = field(default_factory=list[str])

    def choose(
        self, kernel: str, workload: str, usable: Usable, mode: str
    ) -> tuple[str, Point] | None:
        """The log's winner for a kernel, if it has one that may be used."""

        def fit(measured: Measured) -> str | None:
            return usable(measured.rule, measured.point)

        try:
            answer = self.log.lookup(workload, self.target, self.toolchain, mode=mode, usable=fit)
        except LogError as error:  # a damaged page is no reason not to compile
            answer = Miss((str(error),))
        if isinstance(answer, Near) and not self._allows(answer.differs):
            answer = Miss(answer.skipped)
        self.found[kernel] = answer
        return None if isinstance(answer, Miss) else (answer.record.rule, answer.record.point)

    def _allows(self, differs: tuple[Difference, ...]) -> bool:
        if all(difference.name == "mode" for difference in differs):
            return True  # measured here, by these tools, with other caches
        return not self.frozen and conditions.allowed(differs, self.near)

    def missed(self, kernel: str) -> None:
        """Remember a kernel that got its rule's default."""
        self.missing.append(kernel)

    def fault(self, workload: str, rule: str, point: Point) -> str | None:
        """How a point failed under these very conditions; a crash counts unless it also ran."""
        try:
            known = list(self.log.records(workload, self.target.key, self.toolchain.key))
        except LogError:  # as above
            return None
        told = {each.verdict for each in known if (each.rule, each.point) == (rule, point)}
        return broken(told)

    def library(self, workload: str) -> str | None:
        """Nothing: records are of kernels of ours."""
        return None

    def fastest(self, among: Alternatives) -> int | None:
        """The kernel with the least time, where it is clearly below that of the first.

        Only times of one machine, taken by the same tools with the caches in the same state, are
        compared; None if the first, or every other one, has none.
        """
        times = [self._time(workload, among.mode) for workload in among.workloads]
        first = times[0]
        alike = [
            (each[1], index)
            for index, each in enumerate(times)
            if each is not None and first is not None and each[0] == first[0]
        ]
        if first is None or len(alike) < 2:
            return None
        seconds, best = min(alike)
        return best if seconds * (1 + _CLEARLY) < first[1] else 0

    def _time(self, workload: str, mode: str) -> Counted | None:
        """The best time of a kernel, and under what conditions; those of `choose` may count.

        That of the visit which took least: what disturbs the machine only adds time, and to kernels
        that wait for memory more than to others.
        """
        try:
            answer = self.log.lookup(workload, self.target, self.toolchain, mode=mode)
        except LogError:  # as above
            return None
        if isinstance(answer, Miss) or answer.record.mode not in (mode, in_model(mode)):
            return None
        if isinstance(answer, Near) and not self._allows(answer.differs):
            return None
        return (answer.record.target, answer.record.toolchain), median(answer.record.seconds)

    def check(self) -> None:
        """Raise MissingRecordError if a frozen compilation lacks records."""
        if self.frozen and self.missing:
            raise missing_records(f"tuning log {self.log.name}", self.missing)

    def describe(self) -> Mapping[str, Any]:
        """What came of it, as JSON data; a kernel that leaves nothing to choose misses nothing."""
        answers = self.found.values()
        count = {
            "hits": sum(isinstance(each, Hit) for each in answers),
            "near": sum(isinstance(each, Near) for each in answers),
            "misses": len(self.missing),
        }
        skipped = dict.fromkeys(reason for each in answers for reason in each.skipped)
        return {"source": self.log.name, **count, "defaults": self.missing, "skipped": [*skipped]}


def missing_records(source: str, kernels: list[str]) -> MissingRecordError:
    """Say which kernels have no record."""
    named = ", ".join(kernels[:_SHOWN])
    more = f" and {len(kernels) - _SHOWN} more" if len(kernels) > _SHOWN else ""
    return MissingRecordError(
        f"{source} lacks records of {len(kernels)} kernels: {named}{more}"
        " (`hybridc log explain-miss` explains why)"
    )
