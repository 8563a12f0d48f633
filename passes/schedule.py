"""Give each kernel the default point of the first rule that takes it."""

from dataclasses import dataclass

from tvm import tirx

from hybridc.compiler import kernel_cost, plugin
from hybridc.compiler.errors import PassError
from hybridc.compiler.interfaces import (
    Context,
    IRModule,
    KernelRecord,
    NotApplicable,
    Pass,
    Point,
    PrimFunc,
    ScheduleRule,
)
from hybridc.compiler.rewrite import updated
from hybridc.compiler.target import Target


@dataclass(frozen=True)
class Schedule(Pass):
    """Give each kernel the default point of the first rule that takes it.

    The context's kernels tell afterwards which rule took which kernel, at which point, and why
    the rules asked before it did not.  A rule that fails counts as one that does not apply, and
    a note says so.
    """

    def apply(self, module: IRModule, context: Context) -> IRModule:
        """Schedule every loop nest that is not scheduled yet."""
        scheduled = {
            var: _schedule(var.name_hint, func, context)
            for var, func in module.functions_items()
            if isinstance(func, tirx.PrimFunc) and "tirx.is_scheduled" not in func.attrs
        }
        return updated(module, scheduled) if scheduled else module


def _schedule(name: str, func: PrimFunc, context: Context) -> PrimFunc:
    refused: dict[str, str] = {}
    for rule in context.rules:
        rule_name = plugin.name_of(type(rule))
        try:
            taken = _take(rule, func, context.target)
        except Exception as error:  # a kernel that a rule stumbles over is left to the next
            line = (str(error).strip().splitlines() or [""])[0]
            refused[rule_name] = f"it failed: {type(error).__name__}: {line}"
            context.notes.append(f"rule {rule_name} on kernel {name}: {refused[rule_name]}")
            continue
        if isinstance(taken, NotApplicable):
            refused[rule_name] = taken.reason
            continue
        point, done = taken
        flops, size = kernel_cost.flops(func), kernel_cost.traffic(func)
        precision = kernel_cost.precision(func)
        context.kernels.append(
            KernelRecord(name, rule_name, point, refused, flops, size, precision)
        )
        return done.with_attrs({"tirx.is_scheduled": True, "global_symbol": name})
    raise PassError(f"no schedule rule takes kernel {name}: {refused}")


def _take(
    rule: ScheduleRule, func: PrimFunc, target: Target
) -> tuple[Point, PrimFunc] | NotApplicable:
    """The rule's default point for a kernel and what it makes of it, or why it refuses."""
    match = rule.match(func, target)
    if isinstance(match, NotApplicable):
        return match
    point = rule.default(match, target)
    return point, rule.schedule(match, point).mod["main"]
