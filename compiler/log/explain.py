"""Tell for each kernel of a model what the tuning log knows of it, and why not more."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hybridc.compiler import frontend, pipeline, plugin
from hybridc.compiler.configuration import plans
from hybridc.compiler.configuration.plans import Options
from hybridc.compiler.dims import Shape
from hybridc.compiler.errors import InputError, PassError
from hybridc.compiler.interfaces import Context, IRModule, PrimFunc
from hybridc.compiler.kernel_record import KernelRecord
from hybridc.compiler.log import keys, unchecked
from hybridc.compiler.log.access import GENERIC
from hybridc.compiler.log.advice import LogAdvice
from hybridc.compiler.log.keys import Described
from hybridc.compiler.log.lookup import Hit, Miss, Near
from hybridc.compiler.log.nearest import nearest
from hybridc.compiler.log.store import TuningLog
from hybridc.compiler.log.unchecked import Waiting

_SCHEDULE = "schedule"


@dataclass(frozen=True)
class Explained:
    """What a log knows of a kernel.

    `answer` is `hit`, `near`, `miss`, or `none needed` where the rule leaves no choice; `reasons`
    say what differs from the nearest record, and which records cannot be used.
    """

    kernel: str
    workload: str
    rule: str
    flops: int
    answer: str
    seconds: float | None
    reasons: tuple[str, ...]


def explain(
    log: TuningLog,
    model: Path,
    options: Options,
    shapes: Mapping[str, Shape] | None = None,
) -> list[Explained]:
    """Ask a log for every kernel that a compilation with these options would ask it for."""
    plan = plans.plan(options)
    names = [plugin.name_of(type(step)) for step in plan.steps]
    if _SCHEDULE not in names:
        raise InputError(f"the pipeline has no {_SCHEDULE}, so no kernel asks the log for anything")
    at = names.index(_SCHEDULE)
    advice = LogAdvice(log, keys.of_target(plan.target), keys.of_toolchain(), near="any")
    context = Context(plan.target, plan.rules, advice)
    loaded = frontend.load(model, shapes=shapes or {})
    module = pipeline.run(plan.steps[:at], loaded.module, context)
    described = _described(module)
    pipeline.run(plan.steps[at : at + 1], module, context)
    waiting = unchecked.waiting(log)
    return [_explained(log, record, advice, described, waiting) for record in context.kernels]


def _described(module: IRModule) -> dict[str, Described]:
    from tvm import tirx

    funcs: list[tuple[str, PrimFunc]] = [
        (var.name_hint, func)
        for var, func in module.functions_items()
        if isinstance(func, tirx.PrimFunc)
    ]
    found: dict[str, Described] = {}
    for name, func in funcs:
        with suppress(PassError):  # the record of such a kernel has no workload either
            found[name] = keys.of_kernel(func)
    return found


def _explained(
    log: TuningLog,
    record: KernelRecord,
    advice: LogAdvice,
    described: Mapping[str, Described],
    waiting: Waiting,
) -> Explained:
    answer = advice.found.get(record.kernel, Miss())
    seconds: float | None = None
    reasons: list[Any] = []
    if isinstance(answer, Hit):
        kind, seconds = "hit", answer.seconds
    elif isinstance(answer, Near):
        kind, seconds, reasons = "near", answer.seconds, [*map(str, answer.differs)]
    elif record.kernel not in advice.missing:
        kind = "none needed"
    elif record.kernel not in described:
        kind, reasons = "miss", ["no workload key can be made of it"]
    else:
        kind = "miss"
        similar = nearest(log, described[record.kernel])
        reasons = list(similar.differs) if similar else ["no kernel of this kind was measured"]
    reasons += [f"not usable: {reason}" for reason in answer.skipped]
    reasons += _unchecked(record, waiting)
    return Explained(
        record.kernel, record.workload, record.rule, record.flops, kind, seconds, tuple(reasons)
    )


def _unchecked(record: KernelRecord, waiting: Waiting) -> Iterator[str]:
    """What becomes of the kernel's records that nobody checked."""
    if number := sum(waiting.get((record.workload, rule), 0) for rule in {record.rule, GENERIC}):
        yield f"unchecked records awaiting a tuning, which checks their points first: {number}"
