"""What predictions go by, read from a model, its first candidate and the target."""

from hybridc.compiler.assurance.terms import Trial
from hybridc.compiler.configuration.plans import Plan
from hybridc.compiler.hardware import host, roofline
from hybridc.compiler.measurement import profile
from hybridc.compiler.orchestration.attempt import Outcome
from hybridc.compiler.orchestration.expected_gains import from_log
from hybridc.compiler.orchestration.expected_gains.gains import Facts, Gain
from hybridc.compiler.quantization import operator_times
from hybridc.compiler.runtime.session import InferenceSession
from hybridc.compiler.target import Target


def facts_of(found: Outcome, trial: Trial, plan: Plan) -> Facts:
    """The facts of a candidate; at depth 3 its kernels are timed for them."""
    from hybridc.compiler.anatomy.operators import operators  # TVM takes its time

    options, target = plan.options, plan.target
    made = tuple(operators(trial.model.module))
    records = found.report.records or {}
    known = records.get("hits", 0) + records.get("near", 0)
    missed = records.get("misses", 0)
    latency = found.measured.latency
    held = sum(array.nbytes for array in found.artifact.stored().values())
    learnt = from_log.by_log(made, target, options.log) if options.tuning else None
    kernels: dict[int, float] = {}
    if options.steering.depth >= 3:
        session = InferenceSession(found.artifact, target.threads)
        kernels = operator_times.by_flops(profile.kernels(session, trial.feeds[0]))
    return Facts(
        operators=made,
        roofs=roofline.roofs(target),
        tuned=learnt if isinstance(learnt, Gain) else None,
        kernels=kernels,
        latency=latency.value if latency else 0.0,
        code=max(0, (found.measured.size or 0) - held),
        unknown=missed / (known + missed) if known + missed else 1.0,
        machine=_machine(target),
        precision=found.report.precision,
        idle=found.report.idle,
        seconds=found.seconds,
    )


def _machine(target: Target) -> str:
    """What gains are remembered of: the GPU, or the CPU as it is used."""
    if target.gpu is not None:
        return target.gpu.name
    return f"{host.cpu_model()}/{target.vector_bits} bits/{target.threads} threads"
