"""What predictions go by, read from a first candidate and the target that it was made for."""

from hybridc.compiler import host, profile
from hybridc.compiler.attempt import Outcome
from hybridc.compiler.gains import Facts, Kernel
from hybridc.compiler.model import random_feed
from hybridc.compiler.session import InferenceSession
from hybridc.compiler.target import Target


def facts_of(found: Outcome, target: Target, depth: int) -> Facts:
    """The facts of a candidate; at depth 3 its kernels are timed for them."""
    rates, bandwidth = limits(target)
    records = found.report.records or {}
    known = records.get("hits", 0) + records.get("near", 0)
    missed = records.get("misses", 0)
    latency = found.measured.latency
    kernels = tuple(Kernel(each.flops, each.bytes, each.rule) for each in found.report.kernels)
    return Facts(
        kernels=_timed(found, target) if depth >= 3 else kernels,
        rates=rates,
        bandwidth=bandwidth,
        latency=latency.value if latency else 0.0,
        unknown=missed / (known + missed) if known + missed else 1.0,
        machine=f"{host.cpu_model()}/{target.vector_bits} bits/{target.threads} threads",
        precision=found.report.precision,
    )


def limits(target: Target) -> tuple[dict[str, float], float]:
    """Operations a second by precision, and bytes a second, as the target describes itself."""
    facts = target.machine
    fp32 = 2 * target.lanes() * facts.fma_per_cycle * facts.hertz * target.threads
    rates = {precision: fp32 * target.faster(precision) for precision in ("fp32", "bf16", "int8")}
    return rates, facts.l3_bytes_per_cycle * facts.hertz


def _timed(found: Outcome, target: Target) -> tuple[Kernel, ...]:
    session = InferenceSession(found.artifact, target.threads)
    taken = profile.kernels(session, random_feed(found.artifact.inputs))
    return tuple(
        Kernel(each.flops, each.traffic, each.rule, each.calls, each.seconds) for each in taken
    )
