"""Whether this host can run what was compiled for a GPU."""

from collections.abc import Mapping
from typing import Any

from hybridc.compiler.cuda import driver, gpu


def index(target: Mapping[str, Any]) -> int:
    """The number of the first GPU here that runs an artifact's code.

    Raises NoGpuError where there is none, and says why.
    """
    arch = str(target["gpu"]["arch"])
    found = driver.devices()
    for device in found:
        if gpu.runs_on(arch, device.gpu.capability):
            return device.index
    have = ", ".join(f"{device.gpu.name} ({device.gpu.arch})" for device in found)
    raise driver.NoGpuError(f"its code is for {arch}, and this host has {have}")


def unfit(target: Mapping[str, Any]) -> str:
    """Why this host cannot run an artifact for a GPU; nothing where it can, or for a CPU."""
    if "gpu" not in target:
        return ""
    try:
        index(target)
    except driver.NoGpuError as error:
        return str(error)
    return ""
