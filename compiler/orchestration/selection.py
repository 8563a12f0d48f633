"""Which stages a compilation goes through, and in which order they stand."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from hybridc.compiler.errors import InputError, hint
from hybridc.compiler.orchestration.components import COMPONENTS
from hybridc.compiler.orchestration.decisions import NOT_APPLICABLE, NOT_INSTALLED, Decision
from hybridc.compiler.orchestration.stages import LOSSY, Stage


@dataclass(frozen=True)
class Selection:
    """The stages to go through, the components that are enabled, and what is said of the others."""

    stages: tuple[Stage, ...]
    enabled: tuple[str, ...]
    decisions: tuple[Decision, ...]


def select(
    found: Sequence[Stage],
    asked: Sequence[str] | None,
    extra: Iterable[str],
    strict: bool,
    within: Collection[str] = (),
) -> Selection:
    """Take the stages of the components that are asked for; None asks for all that have some.

    `extra` are asked for as well, such as a mode's primary.  A component that is not installed or
    has nothing to do is told, and with `strict` raises InputError; not so those that are at work
    `within` the first stage.
    """
    first, later = found[0], found[1:]
    present = list(dict.fromkeys(stage.component for stage in later))
    wanted = dict.fromkeys((*(present if asked is None else asked), *extra))
    named = [*(asked or ()), *extra]
    known = {*present, *within}
    decisions = [_absent(name) for name in dict.fromkeys(named) if name not in known]
    if strict and decisions:
        raise InputError("; ".join(f"{each.stage}: {each.reason}" for each in decisions))
    kept = tuple(stage for stage in later if stage.component in wanted)
    return Selection((first, *kept), tuple(wanted), tuple(decisions))


def _absent(name: str) -> Decision:
    component = COMPONENTS[name]
    if not component.installed:
        reason = "it is not part of this version"
        return Decision(name, NOT_INSTALLED, reason, component=name)
    reason = f"it has nothing to do: it needs {component.needs}"
    return Decision(name, NOT_APPLICABLE, reason, component=name)


def ordered(stages: Sequence[Stage], order: Sequence[str]) -> tuple[Stage, ...]:
    """Put the stages or components that `order` names first; the very first stays where it is.

    Raises InputError for a name that is neither.
    """
    first, later = stages[0], list(stages[1:])
    # Stages that this compilation does not go through may be named as well.
    known = {first.name, "tuned", *LOSSY, *COMPONENTS, *(stage.name for stage in later)}
    for name in order:
        if name not in known:
            raise InputError(f"order: no stage or component is named {name!r}; {hint(name, known)}")

    def place(stage: Stage) -> int:
        places = [order.index(each) for each in (stage.name, stage.component) if each in order]
        return min(places, default=len(order))

    return (first, *sorted(later, key=place))
