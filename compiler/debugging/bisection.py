"""Find the pass, then the kernel, that makes a model's answer wrong or slow.

The module behind each pass can be run as it stands (see `evaluate`), so halves of the pipeline are
tried; then halves of the kernels that the pass rewrote, each put into the module before the pass.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from hybridc.compiler import pipeline, plugin
from hybridc.compiler.configuration import plans
from hybridc.compiler.interfaces import Context, IRModule, Pass
from hybridc.compiler.ir.rewrite import updated
from hybridc.compiler.kernel_record import KernelRecord
from hybridc.compiler.measurement.clock import Progress

Complaint = Callable[[IRModule], str | None]  # what is wrong with a module, or None


class Slow(Protocol):
    """A complaint of times, which are compared with those of another module."""

    def against(self, module: IRModule) -> Complaint:
        """The complaint where `module` is what a call may take."""
        ...


@dataclass(frozen=True)
class Stage:
    """A module and the pass that made it; None made the first, which is the model as imported."""

    step: Pass | None
    module: IRModule


@dataclass(frozen=True)
class Culprit:
    """The first pass behind which there is something to complain of.

    `step` is its text, None if the model is imported wrongly; `after` the text of the passes
    before it.  `kernel` is the one that the pass made wrong, with the rule that scheduled it, None
    where the fault is in no single kernel.
    """

    step: str | None
    after: str
    complaint: str
    before: IRModule
    kernel: str | None = None
    record: KernelRecord | None = None


@dataclass
class Recorder:
    """An instrument that keeps the module behind each pass that changed it."""

    stages: list[Stage] = field(default_factory=list[Stage])

    def before(self, step: Pass, module: IRModule) -> None:
        """Keep the module that the first pass is given."""
        if not self.stages:
            self.stages.append(Stage(None, module))

    def after(self, step: Pass, before: IRModule, after: IRModule) -> None:
        """Keep what a pass made."""
        import tvm_ffi

        if not tvm_ffi.structural_equal(before, after, map_free_vars=True):
            self.stages.append(Stage(step, after))


@dataclass(frozen=True)
class Run:
    """The modules behind the passes that changed something, and how kernels were scheduled.

    `lowered` are the products that passes made less precise, by operator.
    """

    stages: Sequence[Stage]
    kernels: Sequence[KernelRecord]
    lowered: Counter[str]
    progress: Progress


def run(module: IRModule, plan: plans.Plan, progress: Progress) -> Run:
    """Run the passes.  Raises PassError if one fails, which names it."""
    context, recorder = Context(plan.target, plan.rules), Recorder()
    pipeline.run(plan.steps, module, context, [recorder])
    stages = recorder.stages or [Stage(None, module)]
    return Run(stages, context.kernels, context.lowered, progress)


def first_wrong(found: Run, complain: Complaint) -> Culprit | None:
    """The pass and kernel that bring in what `complain` says; None if it says nothing.

    Halves are tried: what is found is right before and wrong behind.
    """
    stages, tried = found.stages, dict[int, str | None]()

    def said(index: int) -> str | None:
        if index not in tried:
            found.progress(f"behind {_text(stages[index].step)}")
            tried[index] = complain(stages[index].module)
        return tried[index]

    if (last := said(len(stages) - 1)) is None:
        return None
    if (first := said(0)) is not None:
        return Culprit(None, "", first, stages[0].module)
    at = _transition(len(stages) - 1, lambda index: said(index) is not None)
    return _culprit(found, at, said(at) or last, complain)


def first_slow(found: Run, slow: Slow) -> Culprit | None:
    """The first pass behind which a call takes longer than the complaint allows."""
    for at, stage in enumerate(found.stages[1:], 1):
        found.progress(f"behind {_text(stage.step)}")
        complain = slow.against(found.stages[at - 1].module)
        if (complaint := complain(stage.module)) is not None:
            return _culprit(found, at, complaint, complain)
    return None


def _text(step: Pass | None) -> str:
    return "the import" if step is None else plugin.text(step)


def _transition(high: int, bad: Callable[[int], bool]) -> int:
    """The index of a bad one right after a good one, where 0 is good and `high` is bad."""
    low = 0
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if bad(middle) else (middle, high)
    return high


def _culprit(found: Run, at: int, complaint: str, complain: Complaint) -> Culprit:
    stages = found.stages
    before, after = stages[at - 1].module, stages[at].module
    steps = [stage.step for stage in stages[1:at] if stage.step is not None]
    kernel = find_kernel(before, after, complain, found.progress)
    records = [record for record in found.kernels if record.kernel == kernel]
    record = records[-1] if records else None
    step = _text(stages[at].step)
    return Culprit(step, pipeline.text(steps), complaint, before, kernel, record)


def find_kernel(
    before: IRModule, after: IRModule, complain: Complaint, progress: Progress
) -> str | None:
    """The loop nest whose rewriting brings the complaint in, or None if none does alone."""
    old, new = _kernels(before), _kernels(after)
    names = [name for name in old if name in new and _replaceable(old[name][1], new[name][1])]

    def bad(count: int) -> bool:
        progress(f"with {count} of {len(names)} kernels rewritten")
        changed = {old[name][0]: new[name][1] for name in names[:count]}
        return complain(updated(before, changed)) is not None

    if not names or not bad(len(names)):
        return None
    return names[_transition(len(names), bad) - 1]


def _kernels(module: IRModule) -> dict[str, tuple[Any, Any]]:
    """The loop nests by name: global variable and function."""
    from tvm import tirx

    return {
        variable.name_hint: (variable, function)
        for variable, function in module.functions_items()
        if isinstance(function, tirx.PrimFunc)
    }


def _replaceable(old: Any, new: Any) -> bool:
    """Whether a function changed and takes what it took."""
    import tvm_ffi

    def taken(function: Any) -> list[str]:
        return [str(getattr(param, "ty", param)) for param in function.params]

    return taken(old) == taken(new) and not tvm_ffi.structural_equal(old, new, map_free_vars=True)
