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
    PrimFunc,
)
from hybridc.compiler.rewrite import updated


@dataclass(frozen=True)
class Schedule(Pass):
    """Give each kernel the default point of the first rule that takes it.

    The context's kernels tell afterwards which rule took which kernel, at which point, and why
    the rules asked before it did not.
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
        match = rule.match(func, context.target)
        rule_name = plugin.name_of(type(rule))
        if isinstance(match, NotApplicable):
            refused[rule_name] = match.reason
            continue
        point = rule.default(match, context.target)
        done = rule.schedule(match, point).mod["main"]
        flops, size = kernel_cost.flops(func), kernel_cost.traffic(func)
        context.kernels.append(KernelRecord(name, rule_name, point, refused, flops, size))
        return done.with_attrs({"tirx.is_scheduled": True, "global_symbol": name})
    raise PassError(f"no schedule rule takes kernel {name}: {refused}")
