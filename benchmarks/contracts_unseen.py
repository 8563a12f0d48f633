"""Trained networks that nothing was made for, under ever tighter limits on accuracy.

Of each limit the fastest candidate is sought.  What is certified is measured again on data that
nobody has seen, and all candidates of a model are timed in turns: a looser limit shall not give a
slower one, beyond what turns tell apart, nor int8 or half precision stay where fp32 is faster.
"""

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median

import contracts_speed
import data
import markdown
from data import Source
from subjects import AT_ONCE

from hybridc.compiler.assurance.confidence import Estimate
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.measurement import measure
from hybridc.compiler.orchestration.attempt import Outcome
from hybridc.compiler.runtime.session import InferenceSession

LIMITS = (0.9, 0.99, 0.999, 0.9999, 0.99999)
# What medians of turns differ by where the same artifact runs twice.
_NOISE = 0.03


@dataclass(frozen=True)
class Certified:
    """What a limit came to, and its cosine on fresh data; `seconds` are those of the turns."""

    limit: float
    outcome: Outcome
    fresh: Estimate
    seconds: float = 0.0

    @property
    def refuted(self) -> bool:
        """Whether fresh data say beyond doubt that the limit does not hold."""
        return self.fresh.high < self.limit


def run(names: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    """The table row by row."""
    headers = ("model", "cosine ≥", "certified", "fresh data", "precision", "a call", "of fp32")
    yield markdown.head((*headers, "took"))
    notes: list[str] = []
    with tempfile.TemporaryDirectory(prefix="hybridc-") as folder:
        for name in names:
            found, plain = climbed(name, _source(name, Path(folder)), options.samples)
            yield from (markdown.row(_row(name, each, plain)) for each in found)
            notes += [f"* {name}: {fault}" for fault in faults(found, plain)]
    yield from notes or ["* No certificate is refuted, and no looser limit is slower."]


def climbed(name: str, source: Source, samples: int) -> tuple[list[Certified], float]:
    """Each limit's candidate, timed in turns with the others, and the seconds of fp32."""
    plain = contracts_speed.compiled(source, Contract(), samples)
    found: list[tuple[float, Outcome, Estimate]] = []
    for limit in LIMITS:
        print(f"{name}, cosine >= {limit}", file=sys.stderr)
        contract = Contract(AT_ONCE, min_accuracy={"cosine": limit})
        outcome = contracts_speed.compiled(source, contract, samples)
        found.append((limit, outcome, contracts_speed.fresh_cosine(outcome, source, samples)))
    feed = source.samples(data.FRESH, 1)[0]
    sessions = [
        InferenceSession(each.artifact, contracts_speed.THREADS)
        for each in (plain, *(outcome for _, outcome, _ in found))
    ]
    calls = [lambda session=session: session.run(None, feed) for session in sessions]
    first, *rest = (median(times) for times in measure.in_turns(calls, seconds=1.0 * len(calls)))
    return [Certified(*each, time) for each, time in zip(found, rest, strict=True)], first


def faults(found: Sequence[Certified], plain: float) -> Iterator[str]:
    """A sentence for each certificate that is refuted, and each candidate that is too slow."""
    for each in found:
        if each.refuted:
            yield f"**cosine ≥ {each.limit:g} is refuted**: {each.fresh.value:.6f} on fresh data"
        if each.seconds > (1 + _NOISE) * plain:
            yield f"**cosine ≥ {each.limit:g} is slower than fp32**"
    for looser, tighter in pairwise(found):
        if looser.seconds > (1 + _NOISE) * tighter.seconds:
            yield f"**cosine ≥ {looser.limit:g} is slower than ≥ {tighter.limit:g}**"


def _row(name: str, each: Certified, plain: float) -> tuple[str, ...]:
    certified = each.outcome.measured.accuracy["cosine"].low
    took = sum(stage.seconds for stage in each.outcome.report.stages)
    return (
        *(name, f"{each.limit:g}", f"{certified:.6f}", f"{each.fresh.value:.6f}"),
        contracts_speed.precision_of(each.outcome),
        *(f"{each.seconds * 1e6:.0f} µs", f"{each.seconds / plain:.2f}", f"{took:.0f} s"),
    )


def _source(name: str, folder: Path) -> Source:
    import trained_models  # imports torch

    file = folder / f"{name}.onnx"
    trained_models.export(name, file)
    return Source(file, lambda use, count: trained_models.samples(name, use, count))
