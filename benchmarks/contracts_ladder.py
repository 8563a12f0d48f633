"""Contracts of rising difficulty: which are refused, and whether the certified ones stand.

A certificate says with 95 % confidence that a limit holds.  It is refuted where a measurement of
its own, on other data of the same kind, says with the same confidence that it does not.  Times that
were taken while something disturbed the machine refute nothing, and are counted apart.
"""

import argparse
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import contracts_speed
import data
import markdown

from hybridc.compiler import frontend
from hybridc.compiler.assurance.certify import examine
from hybridc.compiler.assurance.clause import Clause
from hybridc.compiler.assurance.contract import Contract
from hybridc.compiler.assurance.terms import Terms, Trial
from hybridc.compiler.assurance.verify import How
from hybridc.compiler.measurement.clock import Clock
from hybridc.compiler.orchestration.attempt import Outcome

# The first asks for as much time again as fp32 takes, the last for a fifth of it; the noise beside
# the signal that is allowed falls from 10 % to a millionth.
_SLOWEST, _FASTEST = 2.0, 0.2
_ROUGHEST, _FINEST = 1e-1, 1e-6


@dataclass(frozen=True)
class Rung:
    """What came of one contract: why it was refused, or which limits were refuted by fresh data.

    `below` are limits that the fresh value misses, if not beyond doubt; `disturbed` those that it
    misses on a machine that did something else as well.
    """

    contract: Contract
    refused: str = ""
    refuted: tuple[str, ...] = ()
    below: tuple[str, ...] = ()
    disturbed: tuple[str, ...] = ()
    precision: str = ""


def run(names: Sequence[str], options: argparse.Namespace) -> Iterator[str]:
    """The table row by row, with a note for each certificate that was refuted."""
    counted = ("certified", "refused", "fresh value below", "refuted", "not judged: disturbed")
    yield markdown.head(("model", "contracts", *counted))
    for name in names:
        yield from _counted(name, list(climb(name, options.contracts, options.samples)))


def _counted(name: str, found: Sequence[Rung]) -> Iterator[str]:
    """A model's row and its notes."""
    kept = [each for each in found if not each.refused]
    refuted = [each for each in kept if each.refuted]
    below = sum(bool(each.below) for each in kept)
    disturbed = [each for each in kept if each.disturbed]
    counts = (len(found), len(kept), len(found) - len(kept), below)
    judged = markdown.judged(str(len(refuted)), not refuted)
    yield markdown.row((name, *map(str, counts), judged, str(len(disturbed))))
    yield from (f"* {name}: {'; '.join(each.refuted)}" for each in refuted)
    yield from (f"* {name}: says nothing: {'; '.join(each.disturbed)}" for each in disturbed)
    if kept and found[-1].refused:
        yield f"* {name}: the tightest is refused: {found[-1].refused}"


def climb(name: str, count: int, samples: int) -> Iterator[Rung]:
    """Compile for each contract, the easiest first, and measure again what is certified."""
    source = data.named(name)
    for contract in ladder(_plain(source, samples), count):
        outcome = contracts_speed.compiled(source, contract, samples)
        rung = _rung(outcome, contract, source, samples)
        print(f"{name}, {_told(contract)}: {rung.refused or rung.precision}", file=sys.stderr)
        yield rung


def _plain(source: data.Source, samples: int) -> float:
    """Seconds of a call in fp32."""
    found = contracts_speed.compiled(source, Contract(max_latency="1h"), samples)
    assert found.measured.latency is not None
    return found.measured.latency.value


def ladder(seconds: float, count: int) -> Iterator[Contract]:
    """Limits on time and accuracy between the easiest and the hardest, evenly by their logarithms.

    `seconds` are those of fp32.
    """
    for index in range(count):
        share = index / max(count - 1, 1)
        limit = seconds * _SLOWEST * (_FASTEST / _SLOWEST) ** share
        noise = _ROUGHEST * (_FINEST / _ROUGHEST) ** share
        yield Contract(limit, min_accuracy={"cosine": 1 - noise})


def _rung(outcome: Outcome, contract: Contract, source: data.Source, samples: int) -> Rung:
    if outcome.broken:
        return Rung(contract, refused=outcome.broken[0])
    clauses = again(outcome, contract, source, samples)
    disturbed = tuple(each.text() for each in clauses if each.disturbed and not each.kept)
    clauses = [each for each in clauses if each.kept or not each.disturbed]
    refuted = tuple(clause.text() for clause in clauses if _refutes(clause))
    below = tuple(clause.text() for clause in clauses if not _holds(clause))
    precision = contracts_speed.precision_of(outcome)
    return Rung(contract, refuted=refuted, below=below, disturbed=disturbed, precision=precision)


def again(
    outcome: Outcome, contract: Contract, source: data.Source, samples: int
) -> Sequence[Clause]:
    """The contract's limits with what is measured now, on fresh data."""
    model, feeds = frontend.load(source.file), source.samples(data.FRESH, samples)
    trial = Trial(model, list(map(dict, feeds)), [model.reference(feed) for feed in feeds])
    ranges = outcome.artifact.certificate.get("calibration")
    how = How(precision=outcome.report.precision)
    terms = Terms(False, how, contract, "fresh data", calibrated=ranges)
    found = examine(outcome.artifact, trial, terms, 0, Clock(lambda _: None).stage)
    return contract.clauses(found.measured)


def _refutes(clause: Clause) -> bool:
    """Whether even the better end of what was measured breaks the limit."""
    assert clause.found is not None
    assert clause.limit is not None
    if clause.higher:
        return clause.found.high < clause.limit
    return clause.found.low > clause.limit


def _holds(clause: Clause) -> bool:
    assert clause.found is not None
    assert clause.limit is not None
    value = clause.found.value
    return value >= clause.limit if clause.higher else value <= clause.limit


def _told(contract: Contract) -> str:
    noise = 1 - contract.min_accuracy["cosine"]
    limit = contract.max_latency or math.nan
    return f"at most {limit * 1e3:.4g} ms, cosine at least 1 - {noise:.1e}"
