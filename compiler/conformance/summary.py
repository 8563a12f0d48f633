"""What a conformance run found: counts by verdict and group, and the reasons for failures."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from hybridc.compiler.conformance.suite import Result, Verdict
from hybridc.compiler.installation.packages import version_of
from hybridc.compiler.text.tables import table

_PLACES = re.compile(r" \(node (?:'[^']*'|computing '[^']*')\)")
_NUMBERS = re.compile(r"\d+(?:\.\d+)?%?(?:e[+-]?\d+)?")
_PACKAGES = ("hybridc", "apache-tvm", "onnx", "onnxruntime", "torch", "numpy")
_WIDTH = 110  # characters of a reason in text


@dataclass(frozen=True)
class Summary:
    """The results of one suite; `complete` is false where it was interrupted."""

    suite: str
    results: tuple[Result, ...]
    total: int
    core: bool = False

    @property
    def complete(self) -> bool:
        """Whether every case was run."""
        return len(self.results) == self.total

    def counts(self) -> Counter[Verdict]:
        """Cases by verdict."""
        return Counter(result.verdict for result in self.results)

    def passed(self) -> int:
        """Cases with right answers, with another runtime's help or without."""
        counts = self.counts()
        return counts[Verdict.PASS] + counts[Verdict.FALLBACK]

    def groups(self) -> dict[str, Counter[Verdict]]:
        """Cases by group and verdict, in order of names."""
        found: dict[str, Counter[Verdict]] = {}
        for result in self.results:
            found.setdefault(result.group, Counter())[result.verdict] += 1
        return dict(sorted(found.items()))

    def reasons(self) -> list[tuple[int, Verdict, str]]:
        """How often each reason comes, the commonest first.

        Reasons that differ in numbers alone are one, told as it came first; places are left out.
        """
        kinds = Counter[tuple[Verdict, str]]()
        told: dict[tuple[Verdict, str], str] = {}
        for result in self.results:
            if result.reason:
                reason = _PLACES.sub("", result.reason)
                kind = result.verdict, _NUMBERS.sub("", reason)
                kinds[kind] += 1
                told.setdefault(kind, reason)
        return [(count, kind[0], told[kind]) for kind, count in kinds.most_common()]

    def text(self) -> str:
        """For people."""
        counts = self.counts()
        failing = [result for result in self.results if result.reason]
        lines = [table(("verdict", "cases", "share"), [_share(self, v, counts) for v in Verdict])]
        if fixed := sum(bool(result.fixed) for result in self.results):
            lines.append(f"{fixed} cases were compiled with inputs that decide shapes as constants")
        if failing:
            rows = [(r.verdict, r.group, r.name, r.reason[:_WIDTH]) for r in failing]
            lines += ["", table(("verdict", "group", "case", "reason"), rows)]
        if not self.complete:
            lines.append(f"interrupted: {len(self.results)} of {self.total} cases were run")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """The document of `--json`."""
        counts = self.counts()
        return {
            "suite": self.suite,
            "core": self.core,
            "complete": self.complete,
            "total": self.total,
            "date": date.today().isoformat(),
            "versions": versions(),
            "counts": {str(verdict): counts[verdict] for verdict in Verdict},
            "cases": [result.to_json() for result in self.results],
        }


def _share(summary: Summary, verdict: Verdict, counts: Counter[Verdict]) -> tuple[str, str, str]:
    count = counts[verdict]
    return str(verdict), str(count), f"{100 * count / max(1, len(summary.results)):.1f} %"


def versions() -> dict[str, str | None]:
    """Of the packages that verdicts depend on; None if one is not installed."""
    return {package: version_of(package) for package in _PACKAGES}


def of(suite: str, results: Sequence[Result], total: int, core: bool) -> Summary:
    """The summary of results in order of names."""
    ordered = sorted(results, key=lambda result: (result.group, result.name))
    return Summary(suite, tuple(ordered), total, core)
