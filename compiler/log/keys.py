"""What the keys of a record stand for: a kernel, a target and a toolchain, each by its content.

A key is the digest of a description, JSON data that the log keeps beside the records, so that a
key can be checked, shown and compared field by field with another.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import version
from math import log2
from typing import Any, Literal

from hybridc.compiler.hardware import host
from hybridc.compiler.interfaces import PrimFunc
from hybridc.compiler.log import workload
from hybridc.compiler.log.record import digest
from hybridc.compiler.target import Target

# A module is a kernel as TVM's database writes it, for records that hold TVM's traces.
Kind = Literal["workload", "target", "toolchain", "module"]
KINDS: tuple[Kind, ...] = ("workload", "target", "toolchain", "module")

# Facts of the machine that are ratios of small numbers keep halves; the others keep octaves, since
# no two measurements of them agree and a factor below two moves no choice far.
_HALVES = ("fma_per_cycle",)
# What says nothing of how fast a schedule runs: pairs of bf16 that are slow are no operands of it.
_UNASKED = ("measured", "bf16")
# Raise this when the same schedule begins to give other code: the passes behind the rules, the
# configuration of TVM, or what a rule makes of a point has changed.
_CODE_GENERATION = 5


@dataclass(frozen=True)
class Described:
    """A key with what it stands for."""

    kind: Kind
    data: Any = field(repr=False)
    key: str

    @classmethod
    def of(cls, kind: Kind, data: Any) -> "Described":
        """Describe by JSON data; the key follows from it."""
        return cls(kind, data, digest(data))


def of_kernel(func: PrimFunc) -> Described:
    """The workload of a kernel that no rule has scheduled.

    Raises PassError if the kernel holds what the canonical form has no words for.
    """
    return Described.of("workload", workload.form(func))


def of_target(target: Target) -> Described:
    """What of a target decides how fast a schedule runs on it; no name is among it."""
    facts = target.machine.to_json()
    machine = {
        name: round(2 * value) / 2 if name in _HALVES else round(log2(value))
        for name, value in facts.items()
        if name not in _UNASKED
    }
    data = {
        "kind": target.kind,
        "vector_bits": target.vector_bits,
        "features": sorted(target.features & host.SPEED_FEATURES),
        "threads": target.threads,
        "l1": target.l1,
        "l2": target.l2,
        "l3": target.l3,
        "machine": machine,
    }
    if target.gpu is not None:
        data["gpu"] = target.gpu.describe()
    return Described.of("target", data)


@cache
def of_toolchain() -> Described:
    """What makes code of a schedule here: versions, and the count of our own changes to it."""
    from tvm.target import codegen

    data = {
        "hybridc": version("hybridc"),
        "tvm": version("apache-tvm"),
        "llvm": codegen.llvm_version_major(),
        "code_generation": _CODE_GENERATION,
    }
    return Described.of("toolchain", data)


def differences(one: Any, other: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The fields in which two descriptions differ, dotted names first, with both values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in sorted({*one, *other}):
            yield from differences(one.get(key), other.get(key), f"{name}.{key}" if name else key)
    elif one != other:
        yield name, one, other
