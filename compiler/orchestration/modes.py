"""Modes: which share of the budget each component gets.

`neural`, `quantum` and `superopt` give most to one; `balanced` gives to all alike; `dynamic` moves
it to what pays off (`bandit`); `intelligent` asks what was gained in earlier compilations
(`expected_gains.history`).
"""

from collections.abc import Iterable, Mapping

from hybridc.compiler.errors import InputError, hint

PRIMARY = ("neural", "quantum", "superopt")
BALANCED, DYNAMIC, INTELLIGENT = "balanced", "dynamic", "intelligent"
MODES = (*PRIMARY, BALANCED, DYNAMIC, INTELLIGENT)
# What a primary component gets beside others of weight 1: three quarters next to one other.
_PRIMARY_WEIGHT = 3.0


def check(mode: str | None, budget: float | None) -> None:
    """Raise InputError if there is no such mode, or it has nothing to divide."""
    if mode is not None and mode not in MODES:
        raise InputError(f"no mode is named {mode!r}; {hint(mode, MODES)}")
    if mode in (DYNAMIC, INTELLIGENT) and budget is None:
        raise InputError(f"mode {mode} moves a budget between components: give one, --budget 10min")


def primary(mode: str | None) -> tuple[str, ...]:
    """The component that a mode puts first, if it does."""
    return (mode,) if mode in PRIMARY else ()


def weights(
    mode: str | None,
    enabled: Iterable[str],
    given: Mapping[str, float],
    learnt: Mapping[str, float],
) -> dict[str, float]:
    """The share of each enabled component; they sum to 1.

    `given` goes before what the mode says; `learnt` is the gain that past compilations lead to
    expect of each, for the mode `intelligent`.
    """
    found = {name: _weight(mode, name, given, learnt) for name in enabled}
    total = sum(found.values())
    return {name: value / total if total else 1 / len(found) for name, value in found.items()}


def _weight(
    mode: str | None, name: str, given: Mapping[str, float], learnt: Mapping[str, float]
) -> float:
    if given:
        return given.get(name, 0.0)
    if mode == INTELLIGENT:
        return learnt.get(name, 0.0)
    return _PRIMARY_WEIGHT if mode == name else 1.0


def trials(mode: str | None, preset: int) -> int:
    """Trials for each kernel where the user gave none: more where tuning comes first."""
    if mode == "neural":
        return 2 * preset
    return max(1, preset // 2) if mode in PRIMARY else preset
