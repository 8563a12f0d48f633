"""CUDA C++ as text: its kernels, and what they look like to a compiler for a CPU."""

import re

_KERNEL = re.compile(
    r'extern "C" __global__ void (?:__cluster_dims__\((\d+), 1, 1\) )?'
    r"(?:__launch_bounds__\([\d, ]+\) )?(\w+)\(([^)]*)\)"
)
_LOCAL = re.compile(r"^( *)alignas\(\d+\) ([\w ]+?) (\w+)\[(\d+)\];", re.MULTILINE)
_DYNAMIC = re.compile(r"extern __shared__ (?:__align__\(\d+\) )?([\w ]+?) (\w+)\[\];")


def emulated(source: str) -> str:
    """The kernels of a source without what lies before them, for `cuda_emulator.h`."""
    kernels = source[source.index('extern "C" __global__') :]
    kernels = _DYNAMIC.sub(r"\1* \2 = reinterpret_cast<\1*>(emulated::shared_base());", kernels)
    # Behind a thread's array lies what is no number, not the room that its alignment leaves.
    kernels = _LOCAL.sub(
        r"\1alignas(16) \2 \3[\4 + emulated::behind<\2>];"
        r" emulated::Tail \3_tail(\3 + \4, sizeof(\2) * emulated::behind<\2>);",
        kernels,
    )
    # An attribute may not stand behind the word that makes the variable static.
    return re.sub(r"__shared__ alignas\((\d+)\)", r"alignas(\1) __shared__", kernels)


def parameters(kernels: str) -> dict[str, list[tuple[str, str]]]:
    """Each kernel's parameters: type and name."""
    return {
        name: [_split(parameter) for parameter in given.split(",")]
        for _, name, given in _KERNEL.findall(kernels)
    }


def clusters(kernels: str) -> dict[str, int]:
    """How many blocks of each kernel form a cluster."""
    return {name: int(blocks or 1) for blocks, name, _ in _KERNEL.findall(kernels)}


def _split(parameter: str) -> tuple[str, str]:
    kind, _, name = parameter.replace("__restrict__", "").strip().rpartition(" ")
    return kind, name
