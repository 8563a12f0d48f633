"""Read, check and run a pipeline of passes."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from hybridc.compiler import pipelines, plugin
from hybridc.compiler.errors import HybridcError, InputError, PassError, PluginError, hint
from hybridc.compiler.interfaces import Context, IRModule, Pass, ScheduleRule
from hybridc.compiler.pipelines import PIPELINES
from hybridc.compiler.target import CPU, CUDA

_OURS = "hybridc.passes."


class Instrument(Protocol):
    """Watches a pipeline run; raise from `after` to stop it."""

    def before(self, step: Pass, module: IRModule) -> None:
        """See the module that a pass is about to rewrite."""

    def after(self, step: Pass, before: IRModule, after: IRModule) -> None:
        """See what the pass made of it."""


def passes(files: Sequence[Path] = ()) -> plugin.Catalogue[Pass]:
    """The passes known: ours, those of entry points, and those in `files`.

    Raises PluginError if one of these holds no plug-in of its name: each compilation asks here.
    """
    for path in files:
        plugin.check_file(path)
    return plugin.catalogue("hybridc.passes", Pass, files)


def rules(files: Sequence[Path] = (), device: str = CPU) -> tuple[ScheduleRule, ...]:
    """Every rule for a kind of target, in the order in which kernels are offered to them.

    Raises PluginError for a rule that has no place in this order.
    """
    catalogue = plugin.catalogue("hybridc.schedules", ScheduleRule, files)
    for name, kind in catalogue.all():
        if not isinstance(found := getattr(kind, "priority", None), int):
            raise PluginError(f"rule {name!r} needs a whole number as its priority, got {found!r}")
        if kind.device not in (CPU, CUDA):
            raise PluginError(f"rule {name!r} is for {CPU!r} or {CUDA!r}, not {kind.device!r}")
    served = [kind() for _, kind in catalogue.all() if kind.device == device]
    return tuple(sorted(served, key=lambda rule: -rule.priority))


def parse(text: str, catalogue: plugin.Catalogue[Pass] | None = None) -> tuple[Pass, ...]:
    """Read `default` or `a,b{x=1},default`; named pipelines stand for their entries.

    Everything that is wrong with the text is reported at once, before any pass runs.
    """
    catalogue = catalogue or passes()
    steps: list[Pass] = []
    faults: list[str] = []
    for spec in split(text):
        if not spec:
            faults.append(f"a pass is missing beside a comma in {text.strip()!r}")
            continue
        if spec in PIPELINES:
            steps.extend(catalogue.create(entry) for entry, _ in PIPELINES[spec])
            continue
        known, name = catalogue.names(), spec.partition("{")[0]
        try:
            if name not in known and hint(name, PIPELINES).startswith("did"):
                raise PluginError(f"no pipeline is named {name!r}; {hint(name, PIPELINES)}")
            steps.append(catalogue.create(spec))
        except PluginError as error:
            faults.append(str(error))
    if faults:
        raise PluginError("; ".join(dict.fromkeys(faults)))
    return tuple(steps)


def split(text: str) -> list[str]:
    """Cut a pipeline's text at the commas that stand outside braces; none is in an empty one."""
    return [spec.strip() for spec in re.split(r",(?![^{]*\})", text)] if text.strip() else []


def entries(text: str) -> list[str]:
    """The passes of a pipeline's text one by one, those of named pipelines in their place."""
    return [
        entry
        for spec in split(text)
        for entry in ([each for each, _ in PIPELINES[spec]] if spec in PIPELINES else [spec])
    ]


def on_device(text: str, device: str) -> str:
    """A pipeline's text with the names that mean something else on a kind of target replaced."""
    return ",".join(pipelines.on_device(spec, device == CUDA) for spec in split(text))


def text(steps: Sequence[Pass]) -> str:
    """Write passes as the text that `parse` reads."""
    return ",".join(plugin.text(step) for step in steps)


def run(
    steps: Sequence[Pass],
    module: IRModule,
    context: Context,
    instruments: Sequence[Instrument] = (),
) -> IRModule:
    """Apply the passes one by one; a failure names the pass and those before it.

    What the user has to give otherwise is no failure: such an error names the pass alone.
    """
    for index, step in enumerate(steps):
        for instrument in instruments:
            instrument.before(step, module)
        try:
            after = _apply(step, module, context)
        except InputError as error:
            raise type(error)(f"pass {plugin.text(step)}: {error}") from error
        except HybridcError as error:
            raise type(error)(f"{_where(steps, index)}: {error}") from error
        except (Exception, SystemExit) as error:  # whatever a pass of somebody else's raises
            first = str(error).strip().split("\n", 1)[0]
            raise PassError(f"{_where(steps, index)}: {type(error).__name__}: {first}") from error
        for instrument in reversed(instruments):  # instruments nest around the pass
            instrument.after(step, module, after)
        module = after
    return module


def _apply(step: Pass, module: IRModule, context: Context) -> IRModule:
    before = _functions(module)
    step.requires(module)
    after = step.apply(module, context)
    if not hasattr(after, "functions_items"):
        raise PassError(f"apply must return a module, got {type(after).__name__}")
    if _functions(module) != before:
        raise PassError("it changed the module that it was given; passes return a new one")
    if _functions(after) == before:
        context.idle.add(plugin.name_of(type(step)))
    elif not type(step).__module__.startswith(_OURS):  # whose own tests say so
        from hybridc.compiler.ir import retyped  # it imports TVM

        if told := retyped.told(module, after):
            raise PassError(told)
    step.ensures(after)
    return after


def _functions(module: IRModule) -> list[tuple[str, int]]:
    """The module's functions by identity: TVM's functions are never changed in place."""
    return [(var.name_hint, hash(func)) for var, func in module.functions_items()]


def _where(steps: Sequence[Pass], index: int) -> str:
    done = f" (after {text(steps[:index])})" if index else ""
    return f"pass {plugin.text(steps[index])} failed{done}"
