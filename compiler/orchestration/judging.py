"""What candidates cost, and whether one is better than another."""

import math

from hybridc.compiler.assurance.clause import Clause
from hybridc.compiler.assurance.contract import Contract, Measured
from hybridc.compiler.text.units import format_duration

_LEAST_NOISE = 0.01  # no clock on a machine with other programs tells less apart
_MOST_NOISE = 0.05  # turns tell so much apart, however much single measurements scatter


def objection(
    contract: Contract, found: Measured, best: Measured | None, threshold: float = 0.0
) -> str:
    """Why a candidate does not stay; empty if it does.

    It has to take more than the share `threshold` off the costs of the `best`.
    """
    if best is None:
        return ""
    if worse := contract.judge_accuracy(found):
        return "; ".join(worse)
    then, now = cost(contract, best), cost(contract, found)
    if now < then * (1 - threshold):
        return ""
    asked = f", and {threshold:.3g} less is asked for" if threshold else ""
    asked += f", while {found.disturbed}" if found.disturbed else ""
    if contract.costs(found):
        return f"no nearer to the limits: {_change(contract, best, found)}{asked}"
    return f"no faster: {format_duration(now)}, {format_duration(then)} before{asked}"


def in_doubt(contract: Contract, found: Measured, best: Measured | None) -> bool:
    """Whether times leave open that a candidate is faster, or seem to say that it is slower.

    Not where time decides nothing: where accuracy is lost, or only memory or size are limited.
    """
    if not (best and best.latency and found.latency) or contract.judge_accuracy(found):
        return False
    if contract.costs(found) and not contract.timed:
        return False
    clearly = found.latency.high < best.latency.low
    return not clearly or bool(found.disturbed or best.disturbed)


def cost(contract: Contract, measured: Measured) -> float:
    """The worst cost as a share of its limit, where 1 just keeps it; without limits, the latency.

    0 where nothing was measured.
    """
    shares = [_share(clause) for clause in contract.costs(measured)]
    return max(shares, default=latency(measured) or 0.0)


def latency(measured: Measured | None) -> float | None:
    """Seconds of a call; None if nobody timed it."""
    found = measured.latency if measured else None
    return found.value if found else None


def noise(measured: Measured | None) -> float:
    """The log-speedup that is not told from none: what a measurement may be off by."""
    found = measured.latency if measured else None
    if found is None or not found.value or not math.isfinite(found.high):
        return _LEAST_NOISE
    return min(max(_LEAST_NOISE, (found.high - found.low) / (2 * found.value)), _MOST_NOISE)


def log_speedup(before: Measured | None, after: Measured) -> float | None:
    """The logarithm of how many times as fast a candidate is; None if one was not timed."""
    then, now = latency(before), latency(after)
    return math.log(then / now) if then and now else None


def _change(contract: Contract, best: Measured, found: Measured) -> str:
    """`latency 9 ms of 5 ms, 8 ms before`, of the limit that is the farthest from being kept."""
    then, now = _worst(contract, best), _worst(contract, found)
    before = then.value if then.name == now.name else f"{then.name} {_of_limit(then)}"
    return f"{now.name} {_of_limit(now)}, {before} before"


def _worst(contract: Contract, measured: Measured) -> Clause:
    """The limit on a cost that a candidate is the farthest from keeping."""
    return max(contract.costs(measured), key=_share)


def _of_limit(clause: Clause) -> str:
    assert clause.limit is not None
    return f"{clause.value} of {clause.show(clause.limit)}"


def _share(clause: Clause) -> float:
    assert clause.limit is not None
    assert clause.found is not None
    value = clause.found.value
    return clause.limit / value if clause.higher else value / clause.limit
