"""Values of a target's description as text: with units, and octaves as what they stand for.

Descriptions keep measured facts of a machine rounded to whole octaves (see `keys`), so 32 there is
some 4.3 GHz.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

_GIGA = 1e9
Show = Callable[[Any], str]


def _cache(value: Any) -> str:
    return f"{value / 2**10:g} KiB"


def _rate(value: Any) -> str:
    return f"about {2.0**value:g} bytes a cycle"


_SHOWN: Mapping[str, Show] = MappingProxyType(
    {
        "vector_bits": lambda value: f"{value} bits",
        "l1": _cache,
        "l2": _cache,
        "l3": _cache,
        "machine.hertz": lambda value: f"about {2.0**value / _GIGA:.2g} GHz",
        "machine.parallel_cycles": lambda value: f"about {2**value} cycles",
        "machine.fma_per_cycle": lambda value: f"{value:g} a cycle",
        **{f"machine.{level}_bytes_per_cycle": _rate for level in ("l1", "l2", "l3", "dram")},
    }
)


def shown(name: str, value: Any) -> str:
    """A field's value: `512 KiB`, `about 4.3 GHz`; what has no unit, or is no number, as it is."""
    if name in _SHOWN and isinstance(value, int | float) and not isinstance(value, bool):
        return _SHOWN[name](value)
    return "nothing" if value is None else str(value)
