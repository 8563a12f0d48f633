"""What LLVM calls CPUs and their instruction sets, and what it is to call this host's."""

from collections.abc import Set
from functools import cache
from typing import Any

from hybridc.compiler.hardware import host

# From high to low; LLVM knows how to schedule for the CPUs of each.
_LEVELS = ("x86-64-v4", "x86-64-v3", "x86-64-v2")
# AMD's alone, and no kernel is faster by it; without it code runs on Intel's CPUs as well.
_NEVER_USED = frozenset({"sse4a"})


def here() -> tuple[str, tuple[str, ...]]:
    """LLVM's name for this host's CPU, and in what the host differs from CPUs of that name.

    LLVM names a CPU by its model.  A hypervisor may hide some of what that model has, such as AMX,
    and an older Linux what it does not know; code for the name alone would end in an illegal
    instruction.  Of a model that LLVM does not know it says `generic`, or names an old one, for
    which kernels would be several times slower.
    """
    offered = host.cpu_features() - _NEVER_USED
    name = _nearest(system_cpu(), offered)
    added = tuple(f"+{each}" for each in sorted(offered - features(name)))
    # What is added may bring something else along.
    beyond = (features(name, added) & host.ISA_FEATURES) - offered
    return name, (*added, *(f"-{each}" for each in sorted(beyond)))


def _nearest(name: str, offered: Set[str]) -> str:
    """The name, or where that stands for less than is offered, that of the level of x86-64."""
    for level in _LEVELS:
        needed = features(level) & host.ISA_FEATURES
        if needed <= offered:
            return name if needed <= features(name) else level
    return name


def system_cpu() -> str:
    """LLVM's name for this host's CPU."""
    from tvm.target import codegen

    return str(codegen.llvm_get_system_cpu())


@cache
def features(cpu: str, attributes: tuple[str, ...] = ()) -> frozenset[str]:
    """LLVM's features of a CPU, those of its scheduling among them."""
    from tvm.target import Target as TVMTarget
    from tvm.target import codegen

    return frozenset(map(str, codegen.llvm_get_cpu_features(TVMTarget(code(cpu, attributes)))))


def code(cpu: str, attributes: tuple[str, ...] = ()) -> dict[str, Any]:
    """What code LLVM is to generate, in TVM's words."""
    return {"kind": "llvm", "mcpu": cpu, **({"mattr": list(attributes)} if attributes else {})}


def is_cpu(name: str) -> bool:
    """Whether LLVM knows a CPU of that name."""
    from tvm.target import codegen

    return bool(codegen.llvm_is_valid_cpu(name, codegen.llvm_get_system_triple()))


def cpus() -> list[str]:
    """The CPUs that LLVM knows."""
    from tvm.target import Target as TVMTarget
    from tvm.target import codegen

    return [str(name) for name in codegen.llvm_get_cpu_archlist(TVMTarget("llvm"))]


@cache
def all_features() -> list[str]:
    """All features that a CPU known to LLVM has."""
    return sorted({feature for name in cpus() for feature in features(name)})
